"""Query parameters that a route does not have are refused: to leave one out is to answer another question."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import get_flat_params
from fastapi.params import ParamTypes, Query

from service.errors import InvalidRequest, UnknownParameter

_TOLD = 10
"""How many unknown ones an answer names."""
_LONGEST = 64
"""Characters of a name; a client may make up any."""


def query_parameters(dependant: Dependant) -> frozenset[str]:
    """The names of those that a route takes, by itself or by what it depends on."""
    return frozenset(
        field.alias
        for field in get_flat_params(dependant)
        if isinstance(field.field_info, Query) and field.field_info.in_ is ParamTypes.query
    )


def check(given: Iterable[str], known: frozenset[str]) -> None:
    """See that all given names are known, and given once.

    Raises
    ------
    UnknownParameter
        It names those that are not, and all that are known.
    InvalidRequest
        One is given twice.
    """
    given = list(given)
    unknown = [name[:_LONGEST] for name in dict.fromkeys(given) if name not in known][:_TOLD]
    if unknown:
        known_ones = f"known here: {', '.join(sorted(known))}" if known else "this route has none"
        raise UnknownParameter(
            f"The query parameter {unknown[0]!r} is not known; {known_ones}.",
            [{"loc": ["query", name], "message": "is not known"} for name in unknown],
        )
    twice = [name for name, times in Counter(given).items() if times > 1]
    if twice:
        raise InvalidRequest(
            f"The query parameter {twice[0]!r} is given more than once.",
            [{"loc": ["query", name], "message": "is given more than once"} for name in twice],
        )
