"""Tests of weights of heads."""
