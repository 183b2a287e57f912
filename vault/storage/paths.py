"""What objects may be called."""

from __future__ import annotations

import re

from vault.errors import InvalidPath

_SEGMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")


def is_segment(name: str) -> bool:
    """Whether a part of a path may be called so: letters, digits, `.`, `_` and `-`, the first a letter or digit."""
    return _SEGMENT.fullmatch(name) is not None


def check_path(path: str) -> None:
    """Refuse what is no path of such segments; raises InvalidPath."""
    if not all(map(is_segment, path.split("/"))):
        raise InvalidPath(f"An object cannot be called {path[:120]!r}.")
