"""Task sequences, learners, measurement and results of the benchmarks."""
