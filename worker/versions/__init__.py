"""Versions as a worker handles them: loaded, learned on, verified, published, and evaluated."""
