"""Image models that keep learning and never forget."""

from engram.config.definition import CommonsDefinition, Definition, InputShape
from engram.config.options import LearnOptions
from engram.data.examples import Examples
from engram.memory import Memory

__all__ = ["CommonsDefinition", "Definition", "Examples", "InputShape", "LearnOptions", "Memory"]
