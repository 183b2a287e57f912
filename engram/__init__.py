"""Image models that keep learning and never forget."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engram.config.definition import CommonsDefinition, Definition, InputShape
    from engram.config.options import LearnOptions
    from engram.data.examples import Examples
    from engram.memory import Memory

__all__ = ["CommonsDefinition", "Definition", "Examples", "InputShape", "LearnOptions", "Memory"]

_HOMES = {
    "CommonsDefinition": "engram.config.definition",
    "Definition": "engram.config.definition",
    "Examples": "engram.data.examples",
    "InputShape": "engram.config.definition",
    "LearnOptions": "engram.config.options",
    "Memory": "engram.memory",
}


def __getattr__(name: str) -> object:
    # Imported when asked for: a process that only decodes images is not to load PyTorch.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
