"""Long drills of the promises whose short forms `tests/promises/` keeps: `python -m benchmarks NAME`."""
