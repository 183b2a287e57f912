"""Evaluation of versions on labelled images: figures of each, and the answers that differ between two."""
