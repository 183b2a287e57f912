"""Tests of heatmaps through networks that users bring."""
