"""Tests of classes: their numbers, and the names that are shown of them."""
