"""Benchmarks of continual learning and drills of the service: `python -m benchmarks SCENARIO`."""
