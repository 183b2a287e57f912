"""Tests of making and verifying versions."""
