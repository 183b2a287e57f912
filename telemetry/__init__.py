"""Logs, metrics, traces and redaction, shared by services and workers."""
