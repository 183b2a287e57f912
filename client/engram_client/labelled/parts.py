"""Parts of a data set: what is learned from, what is held out, and what is kept to evaluate on."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Literal

Purpose = Literal["learn", "evaluate"]
Part = Literal["train", "val", "test"]

_NAMES: Mapping[str, Part] = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}

NAMED = "train, val, valid, validation or test"
"""What parts may be called."""


def part_of(name: str) -> Part | None:
    """The part that a folder or a cell names, in upper or lower case; None where it names none."""
    return _NAMES.get(name.strip().casefold())


def kept(present: Collection[Part], purpose: Purpose) -> tuple[Part, ...]:
    """The parts that are sent: to learn, all but `test`; to evaluate, `test` alone, or what comes nearest to it."""
    if purpose == "learn":
        return ("train", "val")
    for part in ("test", "val"):
        if part in present:
            return (part,)
    return ("train",)


def note(counts: Mapping[Part, int], sent: Iterable[Part], purpose: Purpose) -> str | None:
    """The sentence about the files of parts that are not sent; None where all are."""
    rest = {part: counts[part] for part in counts if part not in sent and counts[part]}
    if not rest:
        return None
    listed = " and ".join(f"{count} files of the part {part!r}" for part, count in rest.items())
    why = "are kept to evaluate on" if purpose == "learn" else "are not evaluated on"
    return f"{listed} {why}, and were not sent"
