"""ONNX Runtime as the engine of tasks' networks."""

from __future__ import annotations

import importlib
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engram.nn.closures.operations import (
    Convolution,
    Flattening,
    Gathering,
    GlobalAverage,
    MaxPool,
    Operation,
    RectifiedSum,
)
from engram.nn.closures.sessions import SIZES, Compiled, SessionEngine, Step
from engram.nn.onnx_network import one_thread
from engram.nn.runtimes import ONNX

OPSET, IR_VERSION = 17, 8
"""Of the graphs, so that every ONNX Runtime from 1.20 on reads them."""

LARGEST_IMAGE = 2**15
"""Values of an image up to which a network is tried with as many as it will answer at once, of larger ones `FEW`."""

FEW = 5


class OnnxEngine(SessionEngine):
    """ONNX Runtime, whose kernels go through a batch image by image; that is tried for every network."""

    runtime = ONNX

    def compiled(self, steps: Sequence[Step], places: Sequence[int], image: tuple[int, int, int]) -> Compiled | None:
        found = _read(_written(steps, places, image))
        # Of images that it takes for the same it has the same bytes by any kernel: so with other weights, too.
        if _tried(found, image) is None or not _tried(_read(_written(steps, places, image, drawn=True)), image):
            return None
        return lambda images, rows: found.run(None, {"0": images if rows is None else images[rows]})


def _read(graph: bytes) -> Any:
    """The session of a graph, which would keep the bytes beside what it makes of them."""
    with tempfile.TemporaryDirectory(prefix="engram-onnx-") as folder:
        path = Path(folder) / "closure.onnx"
        path.write_bytes(graph)
        return one_thread(str(path), arena=False)


def _tried(session: Any, image: tuple[int, int, int]) -> bool | None:
    """Whether drawn images differ in all that a session gives; None if one has other bytes beside or among others."""
    count = SIZES[-1] if math.prod(image) <= LARGEST_IMAGE else FEW
    images = torch.rand(count, *image, generator=torch.Generator().manual_seed(1), dtype=torch.float32).numpy()
    together = session.run(None, {"0": images})
    for first, several in ((0, 1), (1, 2), (2, 3), (0, count // 2), (count - 1, 1)):
        some = session.run(None, {"0": images[first : first + several]})
        pairs = zip(together, some, strict=True)
        if any(whole[first : first + several].tobytes() != part.tobytes() for whole, part in pairs):
            return None
    return all(len({row.tobytes() for row in whole}) == count for whole in together)


def _written(
    steps: Sequence[Step], places: Sequence[int], image: tuple[int, int, int], *, drawn: bool = False
) -> bytes:
    """The graph of some steps as ONNX has it.

    Parameters
    ----------
    drawn
        Whether weights are drawn, and nothing is rectified.
    """
    onnx: Any = importlib.import_module("onnx")
    writer = GraphWriter(onnx, torch.Generator().manual_seed(len(steps)) if drawn else None)
    for step in steps:
        writer.add(*step)
    helper, floats = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        writer.nodes,
        "closure",
        [helper.make_tensor_value_info("0", floats, ["images", *image])],
        [helper.make_tensor_value_info(str(place), floats, None) for place in places],
        writer.weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    found: bytes = model.SerializeToString()
    return found


class GraphWriter:
    """A writer of steps as nodes of ONNX, whose values are named by their places.

    Parameters
    ----------
    drawing
        Gives weights in place of the steps' own; then nothing is rectified.
    """

    def __init__(self, onnx: Any, drawing: torch.Generator | None) -> None:
        self._onnx = onnx
        self._drawing = drawing
        self.nodes: list[Any] = []
        self.weights: list[Any] = []

    def add(self, operation: Operation, given: Sequence[int], place: int) -> None:
        """Add a step, one of `OF_MAPS`, that reads and writes these places."""
        read, found = [str(one) for one in given], str(place)
        match operation:
            case Convolution():
                self._rectified(self._convolution(operation, read[0], f"{found}c"), found, operation.rectify)
            case MaxPool():
                kernel, stride, padding = operation.windows
                sides = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [padding] * 4}
                self._node("MaxPool", read, found, **sides)
            case GlobalAverage():
                self._node("Flatten", [self._node("GlobalAveragePool", read, f"{found}m")], found)
            case Flattening():
                self._node("Flatten", read, found)
            case RectifiedSum():
                self._rectified(self._node("Add", read, f"{found}s"), found, True)
            case Gathering():
                chosen = [*operation.chosen, *[None] * (len(read) - len(operation.chosen))]
                parts = [self._selected(name, some, found) for name, some in zip(read, chosen, strict=True)]
                self._node("Concat", parts, found, axis=1)

    def _node(self, kind: str, given: Sequence[str], found: str, **attributes: Any) -> str:
        self.nodes.append(self._onnx.helper.make_node(kind, list(given), [found], **attributes))
        return found

    def _constant(self, value: Tensor, name: str) -> str:
        self.weights.append(self._onnx.numpy_helper.from_array(value.contiguous().numpy(), name))
        return name

    def _convolution(self, operation: Convolution, read: str, found: str) -> str:
        weight = operation.weight[:, : operation.weight.shape[1] - operation.missing]
        bias = operation.bias
        if self._drawing is not None:
            drawn = torch.randn(weight.shape, generator=self._drawing, dtype=torch.float32)
            weight = drawn * weight[0].numel() ** -0.5
            bias = torch.zeros_like(bias)
        parts = [read, self._constant(weight, f"{found}w"), self._constant(bias, f"{found}b")]
        sides = {"strides": [operation.kind.stride] * 2, "pads": [operation.kind.padding] * 4}
        return self._node("Conv", parts, found, **sides)

    def _rectified(self, value: str, found: str, rectify: bool) -> None:
        self._node("Relu" if rectify and self._drawing is None else "Identity", [value], found)

    def _selected(self, name: str, some: Tensor | None, reader: str) -> str:
        if some is None:
            return name
        return self._node("Gather", [name, self._constant(some, f"{name}i{reader}")], f"{name}p{reader}", axis=1)
