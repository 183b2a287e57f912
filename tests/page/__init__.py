"""Tests of the page at `/ui/`, in a browser."""
