"""Tests of the object storage."""
