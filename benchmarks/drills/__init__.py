"""Drills of the service, in long form: `python -m benchmarks NAME`; `tests/e2e` runs short forms."""
