"""Checkpoints, the journal of finished work, progress reports, and tensors as bytes."""
