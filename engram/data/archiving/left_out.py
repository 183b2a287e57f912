"""Files of an archive that are not learned from, counted by folder."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Reason = Literal["not_an_image", "hidden", "outside", "test"]
"""In a class folder and something else than an image; of a hidden name; not in a class folder; under `test/`."""

MOST_FOLDERS = 50
MOST_NAMES = 5
LONGEST_NAME = 200


@dataclass(frozen=True)
class LeftOutFiles:
    """The files of one folder that were left out for one reason."""

    folder: str
    """Path in the archive; empty for its root."""
    reason: Reason
    format: str | None
    """What they are, as far as their first bytes tell."""
    count: int
    names: tuple[str, ...]
    """Of the first `MOST_NAMES`."""


@dataclass(frozen=True)
class LeftOut:
    """All files that were left out."""

    count: int = 0
    folders: tuple[LeftOutFiles, ...] = ()
    """The first `MOST_FOLDERS`, by path."""
    unlisted: int = 0
    """Files in folders beyond these; `count` includes them."""


NOTHING = LeftOut()


def summarise(files: Iterable[tuple[tuple[str, ...], Reason, str | None]]) -> LeftOut:
    """The summary of files, each given by its path, why it was left out, and its format."""
    names: dict[tuple[str, Reason, str], list[str]] = {}
    counts: dict[tuple[str, Reason, str], int] = {}
    for path, reason, kind in files:
        key = "/".join(path[:-1]), reason, kind or ""
        counts[key] = counts.get(key, 0) + 1
        if len(shown := names.setdefault(key, [])) < MOST_NAMES:
            shown.append(_short(path[-1]))
    listed = tuple(
        LeftOutFiles(_short(folder), reason, kind or None, counts[folder, reason, kind], tuple(found))
        for (folder, reason, kind), found in sorted(names.items())[:MOST_FOLDERS]
    )
    total = sum(counts.values())
    return LeftOut(total, listed, total - sum(one.count for one in listed))


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}..."
