"""Celery worker that learns the tasks of jobs."""
