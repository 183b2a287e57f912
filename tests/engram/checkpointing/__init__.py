"""Tests of checkpoints and of runs that are resumed."""
