"""The methods by which a model learns: one file each, all behind one interface."""

from engram.methods.base import Method, Stored
from engram.methods.registry import method_of

__all__ = ["Method", "Stored", "method_of"]
