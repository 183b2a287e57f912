"""Reading of JSON answers into records, which ignore fields that they do not know yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from engram_client.errors import UnexpectedAnswer

AnyRecord = TypeVar("AnyRecord", bound="Record")


@dataclass(frozen=True, kw_only=True)
class Record:
    """An answer of the service: the fields that this client knows, and all of it in `raw`.

    Answers of later releases may have more fields, which are in `raw` alone.
    """

    raw: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def read(cls: type[AnyRecord], answer: object) -> AnyRecord:
        """The record that an answer says; raises UnexpectedAnswer where it lacks a field that it must have."""
        if not isinstance(answer, Mapping):
            raise UnexpectedAnswer(f"Instead of a {cls.__name__} there came {type(answer).__name__}.")
        kind: Any = cls
        hints = _hints(kind)
        known = {one.name: _value(hints[one.name], answer[one.name]) for one in fields(cls) if one.name in answer}
        try:
            return cls(**{**known, "raw": answer})
        except TypeError as error:
            raise UnexpectedAnswer(f"What came is no {cls.__name__}: {error}.") from error


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _value(hint: Any, value: Any) -> Any:
    """A value of a field of this type: what is below it is read as well."""
    if value is None:
        return None
    if isinstance(hint, type) and issubclass(hint, Record):
        return hint.read(value)
    if get_origin(hint) in (Union, UnionType):
        (inner, *_) = (one for one in get_args(hint) if one is not type(None))
        return _value(inner, value)
    if get_origin(hint) is tuple and isinstance(value, list):
        return tuple(_value(get_args(hint)[0], one) for one in value)
    return value
