"""Long drills of the promises whose short forms `tests/e2e/` keeps: `python -m benchmarks NAME`."""
