"""What a method can be told when a model is created."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from engram.frozen import Frozen

PRESET = "preset"


class MethodSettings(Frozen):
    """Settings of one method; subclasses document every field, and name the papers' values in `presets`."""

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    @classmethod
    def settled(cls, given: Mapping[str, Any]) -> Self:
        """Settings from fields and perhaps the name of a preset, over which the fields win.

        Raises
        ------
        ValueError
            for an unknown preset, an unknown field, or a value out of range.
        """
        fields = dict(given)
        name = fields.pop(PRESET, None)
        if PRESET not in given:
            return cls.model_validate(fields)
        if not isinstance(name, str) or name not in cls.presets:
            known = ", ".join(sorted(cls.presets)) or "none"
            raise ValueError(f"no preset is called {name!r}; there are: {known}")
        return cls.model_validate({**cls.presets[name], **fields})
