"""Counts of what was asked of each version of a model by the Open Inference Protocol."""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass

_MOST_VERSIONS = 256
"""Versions that are counted; of more, those that were asked longest ago are forgotten."""


@dataclass
class VersionStatistics:
    """Requests of one version since this process began to be asked for it."""

    answered: int = 0
    """Requests."""
    images: int = 0
    answered_ns: int = 0
    """Nanoseconds that they took, all together."""
    failed: int = 0
    failed_ns: int = 0
    last_ms: int = 0
    """When one was answered: milliseconds since 1970."""


class ModelStatistics:
    """Statistics of all versions, for one event loop."""

    def __init__(self) -> None:
        self._found: OrderedDict[tuple[str, str, int], VersionStatistics] = OrderedDict()

    def add(self, lineage: str, model: str, version: int, images: int, nanoseconds: int) -> None:
        """A request was answered."""
        one = self._of(lineage, model, version)
        one.answered += 1
        one.images += images
        one.answered_ns += nanoseconds
        one.last_ms = time.time_ns() // 1_000_000

    def add_failed(self, lineage: str, model: str, version: int, nanoseconds: int) -> None:
        """A request to a model that is there was refused."""
        one = self._of(lineage, model, version)
        one.failed += 1
        one.failed_ns += nanoseconds

    def of(self, lineage: str, model: str, version: int) -> VersionStatistics:
        """Those of a version, all zero where it was not asked."""
        return self._found.get((lineage, model, version)) or VersionStatistics()

    def _of(self, lineage: str, model: str, version: int) -> VersionStatistics:
        key = (lineage, model, version)
        if (found := self._found.get(key)) is None:
            found = self._found[key] = VersionStatistics()
            while len(self._found) > _MOST_VERSIONS:
                self._found.popitem(last=False)
        return found
