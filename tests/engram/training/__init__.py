"""Tests of training and pruning."""
