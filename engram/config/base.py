"""What a method can be told when a model is created."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self, get_args

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

_NUMBERS = (int, float)


class Frozen(BaseModel):
    """A validated value that never changes and knows no unknown field."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @field_validator("*", mode="before")
    @classmethod
    def _plain(cls, given: Any, info: ValidationInfo) -> Any:
        """Neither a truth value nor text is a number, and no number a truth value, though Python would make them so."""
        assert info.field_name is not None, "it validates fields"
        wanted = cls.model_fields[info.field_name].annotation
        if isinstance(given, (bool, str)) and (wanted in _NUMBERS or set(get_args(wanted)) & set(_NUMBERS)):
            raise PydanticCustomError("float_type", "not a number")
        if wanted is bool and not isinstance(given, bool):
            raise PydanticCustomError("bool_type", "neither true nor false")
        return given


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
