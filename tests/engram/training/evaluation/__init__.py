"""Tests of evaluation on labelled images."""
