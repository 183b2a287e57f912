"""Fault-injection, load and fuzzing drills: short runs in tests, long ones in benchmarks."""
