"""The methods by which a model learns, all behind one interface."""

from engram.methods.base import Method, StoredModel
from engram.methods.registry import method_of

__all__ = ["Method", "StoredModel", "method_of"]
