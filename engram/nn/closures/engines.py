"""Engines by name: each makes of a task's plan what runs it."""

from __future__ import annotations

from collections.abc import Mapping

from engram.config.engines import FIRST_ENGINE, FIRST_PRECISION, EngineName, Precision
from engram.nn.closures.closure import BlockOwner
from engram.nn.closures.half_steps import Sizes
from engram.nn.closures.onnx_engine import OnnxEngine
from engram.nn.closures.openvino_engine import OpenVinoEngine
from engram.nn.closures.plan import ClosurePlan, Engine, Run
from engram.nn.shapes import SHAPES


class EagerEngine:
    """PyTorch's own operations, one by one."""

    def __init__(self, precision: Precision) -> None:
        self.precision = precision
        self.eager = True
        self.sizes: Sizes = SHAPES

    @property
    def of_candidates(self) -> EagerEngine:
        return self

    def prepare(self, plan: ClosurePlan, owner: BlockOwner) -> Run:
        return plan.run


ENGINES: Mapping[tuple[EngineName, Precision], Engine] = {
    ("eager-1", "fp32"): EagerEngine("fp32"),
    ("eager-1", "bf16"): EagerEngine("bf16"),
    # Which is another one for the networks that were brought (`PretrainedCommons`).
    ("onnxruntime-1", "fp32"): EagerEngine("fp32"),
    ("onnxruntime-1", "bf16"): EagerEngine("bf16"),
    ("onnxruntime-2", "fp32"): OnnxEngine(EagerEngine("fp32")),
    ("openvino-1", "fp32"): OpenVinoEngine(EagerEngine("fp32")),
    ("openvino-1", "bf16"): OpenVinoEngine(EagerEngine("bf16")),
}
"""What a definition may name (`Definition.engine`, `Definition.precision`)."""

FIRST = ENGINES[FIRST_ENGINE, FIRST_PRECISION]
"""What computes where nothing else is named."""
