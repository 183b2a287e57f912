"""Soundness of what is served: problems, readiness, stored objects, answers as certified."""
