"""Tests of the source tree and the documentation."""
