"""Staged answers: a first stage for all tasks, a second by those that contend for an image."""
