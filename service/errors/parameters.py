"""Refusals of parameters and fields that are not known, or that are given more than once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable

from service.errors.exceptions import InvalidRequest, UnknownParameter

_MOST_NAMED = 10
"""How many unknown names an answer repeats."""
_LONGEST_NAME = 64
"""Characters of a name that an answer repeats; a client may make up any."""


def check(
    given: Iterable[str],
    known: Collection[str],
    what: str = "query parameter",
    place: tuple[str, ...] = ("query",),
    owner: str = "this route",
) -> None:
    """Return if all given names are known, and given once.

    Parameters
    ----------
    what
        What is named, for the sentence: "part".
    place
        Where it stands, for `errors`.
    owner
        What knows or does not know it.

    Raises
    ------
    UnknownParameter
        It names those that are not, and all that are known.
    InvalidRequest
        One is given twice.
    """
    given = list(given)
    unknown = shown(name for name in given if name not in known)
    if unknown:
        known_ones = f"known here: {', '.join(sorted(known))}" if known else f"{owner} has none"
        raise UnknownParameter(f"The {what} {unknown[0]!r} is not known; {known_ones}.", not_known(unknown, place))
    twice = [name for name, times in Counter(given).items() if times > 1]
    if twice:
        raise InvalidRequest(
            f"The {what} {twice[0]!r} is given more than once.",
            [{"loc": [*place, name], "message": "is given more than once"} for name in twice],
        )


def shown(names: Iterable[str]) -> list[str]:
    """Names as an answer may repeat them: each once, shortened, and not too many."""
    return [name[:_LONGEST_NAME] for name in dict.fromkeys(names)][:_MOST_NAMED]


def not_known(names: Iterable[str], place: tuple[str, ...]) -> list[dict[str, object]]:
    """The `errors` of names that are not known."""
    return [{"loc": [*place, name], "message": "is not known"} for name in names]
