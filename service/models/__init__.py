"""Models in service: loading, batching, inference, novelty and integrity."""
