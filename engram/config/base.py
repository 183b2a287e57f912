"""Bases of configuration: immutable validated values, and method settings with named presets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self, get_args, get_origin

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler, ValidationInfo, field_validator, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError, ValidationError

_NUMBERS = (int, float)


class Frozen(BaseModel):
    """An immutable validated value, which refuses unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    deprecated_names: ClassVar[Mapping[str, str]] = {}
    """Former names of fields, each with the name of today. They are still taken, and they are what is stored, so that
    processes of an earlier release can read it."""

    def stored(self) -> dict[str, Any]:
        """The fields as JSON, under the names that every release reads."""
        former = {today: name for name, today in self.deprecated_names.items()}
        return {former.get(name, name): value for name, value in self.model_dump(mode="json").items()}

    @model_validator(mode="before")
    @classmethod
    def _refuse_two_names(cls, given: Any) -> Any:
        if isinstance(given, Mapping):
            for former, name in cls.deprecated_names.items():
                if former in given and name in given:
                    error = PydanticCustomError("given_twice", "is the former name of {name}", {"name": name})
                    details = InitErrorDetails(type=error, loc=(former,), input=given[former])
                    raise ValidationError.from_exception_data(cls.__name__, [details])
        return given

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler(core)
        properties = handler.resolve_ref_schema(schema).get("properties", {})
        for former, name in cls.deprecated_names.items():
            if name in properties:
                described = {"deprecated": True, "description": f"The former name of `{name}`."}
                properties[former] = {**properties[name], "title": former.replace("_", " ").title(), **described}
        return schema

    @field_validator("*", mode="before")
    @classmethod
    def _plain(cls, given: Any, info: ValidationInfo) -> Any:
        """Neither a truth value nor text is a number, and no number a truth value, though Python would make them so."""
        assert info.field_name is not None, "a validator of fields is called for a field"
        wanted = cls.model_fields[info.field_name].annotation
        words = {word for part in get_args(wanted) if get_origin(part) is Literal for word in get_args(part)}
        number = wanted in _NUMBERS or bool(set(get_args(wanted)) & set(_NUMBERS))
        if number and isinstance(given, (bool, str)) and (isinstance(given, bool) or given not in words):
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
