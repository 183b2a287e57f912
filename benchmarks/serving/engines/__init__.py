"""Comparison of ways to compute what a version answers: PyTorch's operations, its compiler, and runtimes."""
