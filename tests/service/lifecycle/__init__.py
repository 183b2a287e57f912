"""Tests of signals, child processes and background tasks."""
