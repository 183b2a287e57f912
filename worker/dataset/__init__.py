"""Training data of a job: where it lies, and how it becomes a local file."""
