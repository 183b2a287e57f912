"""Tests of access control and quotas."""
