"""Drift, unknown images and task switches in streams, detected by statistical tests."""
