"""Test doubles, fixtures and drills that tests and benchmarks share."""
