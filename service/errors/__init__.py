"""Exceptions of the HTTP service and their problem documents."""
