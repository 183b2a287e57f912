"""Sentences about requests that do not fit, made of the errors of pydantic."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

from pydantic import ValidationError
from pydantic_core.core_schema import ErrorType

_SENTENCES: Mapping[str, str] = {
    "missing": "is missing",
    "given_twice": "is the former name of {name}, which is given, too",
    "extra_forbidden": "is not known",
    "string_type": "is not text",
    "string_unicode": "is not Unicode text",
    "string_too_short": "has fewer characters than {min_length}",
    "string_too_long": "has more characters than {max_length}",
    "string_pattern_mismatch": "does not match {pattern}",
    "int_type": "is not a whole number",
    "int_parsing": "is not a whole number",
    "int_from_float": "is not a whole number",
    "int_parsing_size": "has too many digits",
    "float_type": "is not a number",
    "float_parsing": "is not a number",
    "finite_number": "is not a finite number",
    "bool_type": "is neither true nor false",
    "bool_parsing": "is neither true nor false",
    "greater_than": "is not greater than {gt}",
    "greater_than_equal": "is less than {ge}",
    "less_than": "is not less than {lt}",
    "less_than_equal": "is greater than {le}",
    "multiple_of": "is not a multiple of {multiple_of}",
    "literal_error": "is not {expected}",
    "list_type": "is not a list",
    "tuple_type": "is not a list",
    "too_long": "has more entries than {max_length}",
    "too_short": "has fewer entries than {min_length}",
    "dict_type": "is not an object",
    "model_type": "is not an object",
    "model_attributes_type": "is not an object",
    "none_required": "is not null",
    "recursion_loop": "is nested too deeply",
    "value_error": "is not allowed: {error}",
}
"""What is said of each kind of error, filled in from the error's context."""
_NOT_NULL = _SENTENCES["none_required"]
_OTHERWISE = "does not fit"
"""What is said of any other kind."""
_PYDANTICS = frozenset(get_args(ErrorType))
"""Kinds that pydantic itself knows; errors of any other kind, and their texts, are our own."""
_BOUNDS = frozenset({"greater_than", "greater_than_equal", "less_than", "less_than_equal", "multiple_of"})

_BRANCH = re.compile(r".*[\[(].*|(constrained-)?(float|int|str|bool|list|dict|tuple|none|model)|function-\w+")
"""Parts that pydantic adds to a place to tell the branches of a union apart; no field is called so."""


def invalid_fields(errors: Sequence[Any]) -> list[dict[str, Any]]:
    """pydantic's errors as places and sentences, without the values that caused them.

    What is wrong with several branches of a union is one entry. Where one branch was entered, and something in it is
    wrong, that the others did not fit either goes without saying; so does that a value is not null.
    """
    found: dict[tuple[str, ...], list[str]] = {}
    for place, text in _plain(errors, ()):
        sentences = found.setdefault(place, [])
        if text not in sentences:
            sentences.append(text)
    for sentences in found.values():
        if len(sentences) > 1 and _NOT_NULL in sentences:
            sentences.remove(_NOT_NULL)
    above = {place[:depth] for place in found for depth in range(len(place))}
    return [{"loc": list(place), "message": " and ".join(found[place])} for place in found if place not in above]


def sentence(field: Mapping[str, Any]) -> str:
    """One of `invalid_fields` as text."""
    return f"{'.'.join(field['loc'])} {field['message']}".strip()


def _plain(errors: Sequence[Any], above: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    for error in errors:
        place = above + tuple(str(part) for part in error["loc"] if not _BRANCH.fullmatch(str(part)))
        context = error.get("ctx") or {}
        if isinstance(inner := context.get("error"), ValidationError):
            yield from _plain(inner.errors(), place)  # a validator that validates something else
        else:
            yield place, _sentence(error, context)


def _no_number(error: Mapping[str, Any]) -> bool:
    """Whether it is NaN or infinity that lies beyond a bound: NaN, which lies beyond any, is no greater than it."""
    given = error.get("input")
    return error["type"] in _BOUNDS and isinstance(given, float) and not math.isfinite(given)


def _sentence(error: Mapping[str, Any], context: Mapping[str, Any]) -> str:
    kind = "finite_number" if _no_number(error) else error["type"]
    if kind not in _SENTENCES and kind not in _PYDANTICS:
        return str(error["msg"])
    try:
        return _SENTENCES.get(kind, _OTHERWISE).format_map(context)
    except KeyError:
        return _OTHERWISE


def counted(number: int, one: str) -> str:
    """`1 image` or `2 images`, of a word `one` whose plural ends in s."""
    return f"{number} {one}" if number == 1 else f"{number} {one}s"
