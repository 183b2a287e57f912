"""Tests of closures: what is read, and the ways to compute it."""
