"""Metric selectors and groupings in PromQL expressions."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import promql_parser


@dataclass(frozen=True)
class Selector:
    """One selector of an expression: the metric's name and its label matchers."""

    name: str
    labels: tuple[tuple[str, str], ...]


def selectors(text: str) -> list[Selector]:
    """Every selector of an expression, with Grafana's variables filled in; raises ValueError if it does not parse."""
    text = text.replace("$__rate_interval", "5m").replace("$model", ".*")
    return list(_found(promql_parser.parse(text)))


def grouping(text: str) -> set[str]:
    """The labels that an expression groups by."""
    found = re.findall(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)", text)
    return {name.strip() for names in found for name in names.split(",") if name.strip()}


def _found(node: object) -> Iterator[Selector]:
    if isinstance(node, promql_parser.VectorSelector):
        yield Selector(str(node.name), tuple((one.name, one.value) for one in node.matchers.matchers))
        return
    for part in ("lhs", "rhs", "expr", "args", "vs", "vector_selector", "param"):
        child = getattr(node, part, None)
        for one in child if isinstance(child, list) else [child]:
            if one is not None and type(one).__module__.startswith("promql_parser"):
                yield from _found(one)
