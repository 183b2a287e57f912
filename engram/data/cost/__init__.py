"""Estimates of what the decoding of an image takes, by a scan of its bytes for each format."""
