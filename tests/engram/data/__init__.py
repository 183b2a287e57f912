"""Tests of archives, images and examples."""
