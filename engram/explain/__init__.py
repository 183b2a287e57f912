"""Layer-wise relevance propagation: heatmaps of logits, and relevance of units."""
