"""Versions as a worker makes them: their blobs read, what was learned verified, and published."""
