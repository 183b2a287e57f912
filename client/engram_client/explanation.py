"""Heatmap of one answer, as a picture or as numbers."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Explanation:
    """The relevance of each pixel for a label: a PNG, or numbers where the format `json` was asked for."""

    task: str
    """Whose network is explained."""
    label: str
    version: int
    content: bytes
    """As it came."""
    numbers: dict[str, Any] | None = None
    """`relevance` (C, H, W), its `sum`, and the `logit` that it explains."""

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write it to a file; returns its path."""
        target = Path(path)
        target.write_bytes(self.content)
        return target
