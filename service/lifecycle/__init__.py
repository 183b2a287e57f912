"""Signals, child processes, draining and background tasks."""
