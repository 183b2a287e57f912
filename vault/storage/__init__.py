"""Object storage in a local folder or an S3 bucket."""
