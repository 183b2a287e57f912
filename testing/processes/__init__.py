"""Processes and threads of tests: starting, killing, racing and interleaving them."""
