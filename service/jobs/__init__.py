"""Submission of learning jobs, their uploads and their event streams."""
