"""Image models that keep learning and never forget."""

from engram.data import Examples
from engram.definition import CommonsDefinition, Definition, InputShape
from engram.memory import Memory
from engram.options import LearnOptions

__all__ = ["CommonsDefinition", "Definition", "Examples", "InputShape", "LearnOptions", "Memory"]
