"""Tests of problem documents and their sentences."""
