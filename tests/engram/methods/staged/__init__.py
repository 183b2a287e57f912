"""Tests of staged models."""
