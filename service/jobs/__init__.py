"""Submission of jobs, their uploads and their event streams."""
