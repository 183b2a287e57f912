"""OpenVINO as the engine of tasks' networks."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy
from torch import Tensor

from engram.config.engines import Precision
from engram.errors import EngineMissing
from engram.nn.closures.operations import (
    Convolution,
    Flattening,
    Gathering,
    GlobalAverage,
    MaxPool,
    Operation,
    RectifiedSum,
)
from engram.nn.closures.sessions import Compiled, SessionEngine, Step, Values
from engram.nn.runtimes import OPEN_VINO, openvino

PRECISIONS: Mapping[Precision, str] = {"fp32": "f32", "bf16": "bf16"}
"""As OpenVINO calls them."""

OPSET = "openvino.opset13"
"""Of the graphs."""


class OpenVinoEngine(SessionEngine):
    """OpenVINO, one image after the other: so each has the same bytes whatever is beside it."""

    runtime = OPEN_VINO

    def compiled(self, steps: Sequence[Step], places: Sequence[int], image: tuple[int, int, int]) -> Compiled:
        ov = openvino()
        writer = _ModelWriter(importlib.import_module(OPSET), image)
        for step in steps:
            writer.add(*step)
        model = ov.Model([writer.values[place] for place in places], [writer.values[0]], "closure")
        asked = PRECISIONS[self.precision]
        settings = {
            "INFERENCE_PRECISION_HINT": asked,
            # In the thread that asks: a stream would have threads of its own for every task.
            "NUM_STREAMS": 0,
            "INFERENCE_NUM_THREADS": 1,
            "ENABLE_CPU_PINNING": False,
            "CACHE_DIR": "",
        }
        found = _core().compile_model(model, "CPU", settings)
        given = found.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        if given != asked:
            raise EngineMissing(f"OpenVINO computes in {given} on this processor instead of {asked}")
        return _EachAlone(found)


class _EachAlone:
    """A compiled network of one image, which sees those of a batch in turn, for one thread at a time."""

    def __init__(self, compiled: Any) -> None:
        self._request = compiled.create_infer_request()
        self._given = self._request.get_input_tensor(0).data  # (1, C, H, W)
        self._shapes = [tuple(output.shape)[1:] for output in compiled.outputs]
        self._lock = threading.Lock()

    def __call__(self, images: Values, rows: Sequence[int] | None = None) -> Sequence[Values]:
        chosen = range(len(images)) if rows is None else rows
        found = [numpy.empty((len(chosen), *shape), numpy.float32) for shape in self._shapes]
        with self._lock:
            for number, row in enumerate(chosen):
                self._given[0] = images[row]
                values = self._request.infer(share_outputs=True).values()
                for whole, value in zip(found, values, strict=True):
                    whole[number] = value[0]
        return found


@cache
def _core() -> Any:
    """Where what is compiled belongs to; of two threads that ask first each may have one of its own."""
    return openvino().Core()


class _ModelWriter:
    """A writer of steps as OpenVINO's operations; `values` has what each place holds."""

    def __init__(self, operations: Any, image: tuple[int, int, int]) -> None:
        self._of = operations
        self.values: dict[int, Any] = {0: operations.parameter([1, *image], numpy.float32)}

    def add(self, operation: Operation, given: Sequence[int], place: int) -> None:
        """Add a step, one of `OF_MAPS`, that reads and writes these places."""
        self.values[place] = self._of_step(operation, [self.values[one] for one in given])

    def _of_step(self, operation: Operation, read: Sequence[Any]) -> Any:
        of = self._of
        match operation:
            case Convolution():
                found = self._convolution(operation, read[0])
                return of.relu(found) if operation.rectify else found
            case MaxPool():
                kernel, stride, padding = ([side] * 2 for side in operation.windows)
                return of.max_pool(read[0], stride, [1, 1], padding, padding, kernel).output(0)
            case GlobalAverage():
                return of.reduce_mean(read[0], self._constant([2, 3]), keep_dims=False)
            case Flattening():
                return of.reshape(read[0], self._constant([1, -1]), special_zero=False)
            case RectifiedSum():
                return of.relu(of.add(read[0], read[1]))
            case Gathering():
                chosen = [*operation.chosen, *[None] * (len(read) - len(operation.chosen))]
                parts = [self._selected(value, some) for value, some in zip(read, chosen, strict=True)]
                return of.concat(parts, 1) if len(parts) > 1 else parts[0]
        raise AssertionError(f"{operation} is none of OF_MAPS")

    def _convolution(self, operation: Convolution, read: Any) -> Any:
        weight = operation.weight[:, : operation.weight.shape[1] - operation.missing]
        sides = [operation.kind.stride] * 2, [operation.kind.padding] * 2
        found = self._of.convolution(read, self._weights(weight), sides[0], sides[1], sides[1], [1, 1])
        return self._of.add(found, self._weights(operation.bias[None, :, None, None]))

    def _selected(self, value: Any, some: Tensor | None) -> Any:
        if some is None:
            return value
        return self._of.gather(value, self._constant(some.tolist()), self._constant(1))

    def _weights(self, value: Tensor) -> Any:
        return self._of.constant(value.float().contiguous().numpy())

    def _constant(self, value: int | list[int]) -> Any:
        return self._of.constant(numpy.array(value, numpy.int64))
