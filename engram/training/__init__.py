"""Training of one engram: loop, unit importance, pruning, report."""
