"""Tests of definitions, options and settings."""
