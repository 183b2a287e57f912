"""ONNX Runtime as the engine of tasks' networks: what a plan computes of maps, as a session."""

from __future__ import annotations

import hashlib
import importlib
import math
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from engram.config.engines import Precision
from engram.errors import EngineMissing
from engram.nn.closures.closure import BlockOwner
from engram.nn.closures.half_steps import Sizes
from engram.nn.closures.operations import (
    Convolution,
    Flattening,
    Gathering,
    GlobalAverage,
    MaxPool,
    Operation,
    RectifiedSum,
)
from engram.nn.closures.plan import ClosurePlan, Engine, Run
from engram.nn.onnx_network import one_thread, refusal, require_onnx
from engram.nn.shapes import SHAPES

OPSET, IR_VERSION = 17, 8
"""Of the graphs, so that every ONNX Runtime from 1.20 on reads them."""

SIZES: Sizes = tuple(range(1, SHAPES[-1] + 1))

LARGEST_IMAGE = 2**15
"""Values of an image up to which a network is tried with as many as it will answer at once, of larger ones `FEW`."""

FEW = 5

OF_MAPS = (Convolution, MaxPool, GlobalAverage, Flattening, RectifiedSum, Gathering)
"""Operations that ONNX Runtime has an image's bytes of, however many there are; others are products of matrices."""

Step = tuple[Operation, tuple[int, ...], int]


class Session(NamedTuple):
    """What ONNX Runtime computes of a plan, and where its results belong."""

    run: Any
    places: tuple[int, ...]
    weights: bytes
    """SHA-256 of what it was made of."""


class Kept:
    """The session of an engram, made by one thread at a time."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.session: Session | None = None


class OnnxEngine:
    """ONNX Runtime for all that is computed of maps, by one thread; dense layers and heads are PyTorch's, row by row.

    Its kernels go through a batch image by image, so that nothing has to be padded; that is tried for every network.
    On a GPU all is PyTorch's.

    Parameters
    ----------
    of_candidates
        As of `Engine`.
    """

    precision: Precision = "fp32"
    eager = False
    sizes = SIZES

    def __init__(self, of_candidates: Engine) -> None:
        self._of_candidates = of_candidates
        self._kept: WeakKeyDictionary[BlockOwner, Kept] = WeakKeyDictionary()
        self._lock = threading.Lock()

    @property
    def of_candidates(self) -> Engine:
        return self._of_candidates

    def prepare(self, plan: ClosurePlan, owner: BlockOwner) -> Run:
        """What runs a plan; raises EngineMissing.

        A session is kept for as long as any version has the engram, and made anew if it has other weights.
        """
        mapped = _of_maps(plan.operations)
        if not mapped or owner.head.weight.device.type != "cpu":
            return plan.run
        with self._lock:
            kept = self._kept.setdefault(owner, Kept())
        weights = _digest(mapped)
        with kept.lock:
            if kept.session is None or kept.session.weights != weights:
                kept.session = _session(plan, mapped, owner, weights)
            session = kept.session
        there = {found for _, _, found in mapped}
        rest = tuple(step for step in plan.operations if step[2] not in there)

        def run(images: Tensor) -> tuple[Tensor, ...]:
            seen = session.run(None, {"0": images.contiguous().numpy()})
            values = dict(zip(session.places, map(torch.from_numpy, seen), strict=True))
            values[0] = images
            for operation, given, found in rest:
                values[found] = operation(*[values[place] for place in given])
            return tuple(values[place] for place in plan.results)

        return run


def _of_maps(steps: Sequence[Step]) -> list[Step]:
    """The steps that depend on the image by operations on maps alone."""
    found, there = list[Step](), {0}
    for step in steps:
        if isinstance(step[0], OF_MAPS) and there.issuperset(step[1]):
            found.append(step)
            there.add(step[2])
    return found


def _digest(steps: Sequence[Step]) -> bytes:
    """SHA-256 of the steps' weights, and of which channels they read."""
    found = hashlib.sha256()
    for operation, given, place in steps:
        found.update(repr((type(operation).__name__, given, place)).encode())
        parts: list[Tensor] = []
        if isinstance(operation, Convolution):
            parts = [operation.weight.permute(0, 2, 3, 1), operation.bias]
        elif isinstance(operation, Gathering):
            parts = [some for some in operation.chosen if some is not None]
        for part in parts:
            found.update(repr(part.shape).encode())
            found.update(part.contiguous().numpy().data)
    return found.digest()


def _session(plan: ClosurePlan, mapped: Sequence[Step], owner: BlockOwner, weights: bytes) -> Session:
    there = {found for _, _, found in mapped}
    reading = [place for step in plan.operations if step[2] not in there for place in step[1]]
    places = tuple(sorted(there.intersection([*reading, *plan.results])))
    image = (owner.layout.channels, *owner.layout.image_size)
    require_onnx()
    try:
        found = _read(_written(mapped, places, image))
        # Of images that it takes for the same it has the same bytes by any kernel: so with other weights, too.
        fits = _tried(found, image) is not None and _tried(_read(_written(mapped, places, image, drawn=True)), image)
    except MemoryError:
        raise
    except Exception as error:  # ONNX Runtime's own, of many kinds
        raise EngineMissing(refusal(repr(owner.task), error)) from error
    if not fits:
        raise EngineMissing(
            f"ONNX Runtime gives an image of {owner.task!r} other bytes beside others, on this processor"
        )
    return Session(found.run, places, weights)


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
