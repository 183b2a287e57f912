"""Engines by name: each makes of a task's plan what runs it."""

from __future__ import annotations

from collections.abc import Mapping

from engram.config.engines import EngineName
from engram.nn.closures.plan import ClosurePlan, Engine, Run


class EagerEngine:
    """PyTorch's own operations, one by one, in float32."""

    def prepare(self, plan: ClosurePlan) -> Run:
        return plan.run


ENGINES: Mapping[EngineName, Engine] = {"eager-1": EagerEngine()}
"""What a definition may name (`Definition.engine`)."""
