"""The base of everything that is validated once and never changed."""

from __future__ import annotations

from typing import Any, get_args

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
