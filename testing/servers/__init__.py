"""Servers for tests: the service, Redis, S3 and an OpenTelemetry collector."""
