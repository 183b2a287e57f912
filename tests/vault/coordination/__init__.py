"""Tests of the coordination through Redis."""
