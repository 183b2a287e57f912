"""Tests of task recognition."""
