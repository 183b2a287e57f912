"""Validated definitions, options and method settings."""
