"""Numbers in sentences."""

from __future__ import annotations


def counted(number: int, one: str) -> str:
    """`1 image` or `2 images`, of a word `one` whose plural ends in s."""
    return f"{number} {one}" if number == 1 else f"{number} {one}s"
