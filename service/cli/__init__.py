"""Command-line program `engram`."""
