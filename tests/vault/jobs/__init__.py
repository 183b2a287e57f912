"""Tests of job records."""
