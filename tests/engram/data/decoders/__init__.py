"""Tests of the decoders of images."""
