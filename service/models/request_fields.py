"""Fields of a request that its query, its JSON body or its form may bring."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Self, TypeVar, cast

from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.requests import Request

from service.errors.exceptions import ConflictingParameter
from service.errors.problem_details import invalid

Fields = TypeVar("Fields", bound="RequestFields")


def whole(value: Any) -> Any:
    """3 for 3.0, which JSON does not tell apart."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


class RequestFields(BaseModel):
    """Base of the fields of one route, each of which has a default."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> Self:
        """Fields of a JSON object, whose types are taken as they stand; null is one that is not given.

        Raises
        ------
        InvalidRequest
        """
        try:
            return cls.model_validate({k: v for k, v in given.items() if v is not None}, strict=True)
        except ValidationError as error:
            raise invalid(error, "body") from error

    @classmethod
    def from_form(cls, given: Mapping[str, str]) -> Self:
        """Fields of a form, whose values are text; raises InvalidRequest."""
        try:
            return cls.model_validate_strings(dict(given))
        except ValidationError as error:
            raise invalid(error, "form") from error

    @classmethod
    def schema_properties(cls) -> dict[str, Any]:
        """The fields for the document of the interface; none is null."""
        found = {}
        for name, schema in cls.model_json_schema()["properties"].items():
            choices = [choice for choice in schema.pop("anyOf", ()) if choice != {"type": "null"}]
            found[name] = {key: value for key, value in schema.items() if value is not None and key != "title"}
            found[name] |= choices[0] if len(choices) == 1 else {"anyOf": choices} if choices else {}
        return found

    @classmethod
    def none(cls) -> Self:
        """The fields of a body that names none."""
        return cast(Self, _only(cls, ()))

    def joined(self, query: Mapping[str, Any], request: Request) -> Self:
        """These fields of a body with those of the request's query, which says `query`.

        Raises
        ------
        ConflictingParameter
            Both have one of the fields, and not the same.
        """
        if not self.model_fields_set:
            return cast(Self, _only(type(self), tuple(query.items())))
        given = request.query_params
        for name in sorted(self.model_fields_set):
            if name in given and query[name] != getattr(self, name):
                raise ConflictingParameter(f"The query says another {name} than the body does; say it once.")
        own = {name: getattr(self, name) for name in self.model_fields_set}
        return self.model_copy(update={**query, **own})


@lru_cache(maxsize=64)
def _only(cls: type[Fields], named: tuple[tuple[str, Any], ...]) -> Fields:
    """Fields with some values, which were validated already; kept, since most requests ask for the same."""
    return cls().model_copy(update=dict(named))
