"""Relevance-based Neural Freezing: relevant units of a shared network are frozen or slowed down."""
