"""Tests of all packages, the documentation and the source tree."""
