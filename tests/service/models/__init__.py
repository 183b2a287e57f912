"""Tests of the models in service."""
