"""Relevance Mapping Networks: one network, and for each task a learned map of its weights."""
