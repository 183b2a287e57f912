"""Tests of integrity checks and garbage collection."""
