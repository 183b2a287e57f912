"""Tests of networks, their capacity and their bytes."""
