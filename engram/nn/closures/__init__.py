"""Closures of tasks: what an answer needs of a network, and the computation of just that."""
