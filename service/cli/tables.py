"""Answers on the screen: tables for people, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import typer


def print_table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Rows below the columns' names; None is `-`, and a moment is shown to the second."""
    shown = [tuple(heads), *(tuple(cell(value) for value in row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    for row in shown:
        typer.echo("  ".join(f"{text:{width}}" for text, width in zip(row, widths, strict=True)).rstrip())


def print_facts(facts: Iterable[tuple[str, object]]) -> None:
    """One fact on a line, behind its name."""
    shown = [(name, cell(value)) for name, value in facts]
    width = max(len(name) for name, _ in shown)
    for name, text in shown:
        typer.echo(f"{name:{width}}  {text}")


def print_json(document: Any) -> None:
    """A document for programs."""
    typer.echo(json.dumps(document, indent=2, ensure_ascii=False))


def cell(value: object) -> str:
    """A value as one cell of a table."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4f}"
    return " ".join(str(value).split())


def moment(text: str) -> str:
    """A moment of the service to the second."""
    return f"{text[:19]}Z"
