"""Heatmaps through networks that users bring: relevance where its rules fit, gradients elsewhere."""
