"""Tests of the monitor of streams and its detectors."""
