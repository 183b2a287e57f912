"""Settings of ReReLRP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from engram.config.base import MethodSettings


class RerelrpSettings(MethodSettings):
    """ReReLRP (arXiv 2502.10789): relevance decides what is frozen, and signatures of relevance recognise the task.

    How far pruning may go is `tolerance` in the options of each task; the paper takes 0.01, and recovers nothing
    (`rounds` 1, `recovery_epochs` 0). What orders the units is always relevance, whatever the option `score` says.
    """

    form: Literal["blocks", "published"] = "blocks"
    """`blocks`: every task an engram on blocks, its signature the relevance of what its head reads; one pass for all.
    `published`: one conventional network of a fixed size whose relevant units are frozen, signatures over all layers of
    each task's sub-network; a forward pass for each task, and one of relevance for each but the newest."""
    exemplars: int = Field(default=1000, ge=2, le=100_000)
    """Images of each task, chosen by herding, whose signatures are kept for the detectors to learn from."""
    features: int = Field(default=40, ge=1, le=4096)
    """Values in each signature: the units of highest mean relevance."""
    trees: int = Field(default=300, ge=1, le=2000)
    """Trees of each detector."""
    depth: int = Field(default=40, ge=1, le=64)
    """At most so many decisions from the root of a tree to a leaf."""
    leaf: int = Field(default=5, ge=1, le=1000)
    """Exemplars in each leaf, at least."""
    step: float = Field(default=0.05, gt=0, le=0.5)
    """Share of all units that each step of pruning takes away; for `published`. Blocks bisect instead."""

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {"form": "published", "features": 40, "trees": 300, "depth": 40, "leaf": 5},
    }
