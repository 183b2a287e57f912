"""Tests of logs, traces and redaction."""
