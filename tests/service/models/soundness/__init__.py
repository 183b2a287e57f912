"""Tests of the soundness of what is served."""
