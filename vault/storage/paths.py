"""Valid object paths."""

from __future__ import annotations

import re

from vault.errors import InvalidPath

_SEGMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")


def is_segment(name: str) -> bool:
    """Whether the text is a valid part of a path: letters, digits, `.`, `_` and `-`, the first a letter or digit."""
    return _SEGMENT.fullmatch(name) is not None


def check_path(path: str) -> None:
    """Raise InvalidPath unless all parts of the path are valid."""
    if not all(map(is_segment, path.split("/"))):
        raise InvalidPath(f"An object cannot be called {path[:120]!r}.")
