"""Comparison of ways to compute what a version answers: PyTorch, its compiler, and runtimes."""
