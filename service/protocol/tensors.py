"""Tensors of the Open Inference Protocol: their names, datatypes, shapes, and their elements as bytes."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

import numpy
from numpy.typing import NDArray

from service.errors.exceptions import InvalidRequest

Datatype = Literal["BYTES", "UINT8", "FP32", "BOOL"]

IMAGE, PIXELS = "image", "pixels"
"""Names of the inputs, of which a request has exactly one."""

LABEL, TASK, PROBABILITY, TASK_PROBABILITY = "label", "task", "probability", "task_probability"
NOVELTY, KNOWN, KNOWN_JUDGED, PROBABILITIES = "novelty", "known", "known_judged", "probabilities"
HEATMAP = "heatmap"

DATATYPES: dict[str, Datatype] = {
    LABEL: "BYTES",
    TASK: "BYTES",
    PROBABILITY: "FP32",
    TASK_PROBABILITY: "FP32",
    NOVELTY: "FP32",
    KNOWN: "BOOL",
    KNOWN_JUDGED: "BOOL",
    PROBABILITIES: "FP32",
    HEATMAP: "UINT8",
}
"""The outputs, in the order in which they are answered."""

USUAL = tuple(name for name in DATATYPES if name != HEATMAP)
"""The outputs of a request that names none."""

MOST_SHOWN = 64
"""Characters of a name that an answer repeats."""

_LENGTH, _SINGLE = struct.Struct("<I"), struct.Struct("<f")


# Not frozen, as are the others of a request's way: that would take as long again as making them.
@dataclass(slots=True)
class OutputTensor:
    """One output of an answer, its elements in row-major order."""

    name: str
    datatype: Datatype
    shape: tuple[int, ...]
    elements: Sequence[Any] | NDArray[Any]
    """Text where the datatype is BYTES."""

    def encoded(self) -> bytes:
        """The elements as the binary extension has them: little endian, texts in UTF-8 behind their length."""
        if isinstance(self.elements, numpy.ndarray):
            return self.elements.tobytes()
        if self.datatype == "FP32":
            if len(self.elements) == 1:
                return _SINGLE.pack(self.elements[0])
            return struct.pack(f"<{len(self.elements)}f", *self.elements)
        if self.datatype == "BYTES":
            return b"".join([_LENGTH.pack(len(text)) + text for text in map(str.encode, self.elements)])
        return bytes(self.elements)  # BOOL: one byte each

    def listed(self) -> Any:
        """The elements as JSON has them, flat."""
        return self.elements.ravel() if isinstance(self.elements, numpy.ndarray) else self.elements


def counted(shape: Any, what: str) -> tuple[int, ...]:
    """A shape as a request gives it; raises InvalidRequest."""
    if shape == [1]:
        return (1,)
    if not isinstance(shape, list) or not shape or not all(type(size) is int and 0 <= size < 2**31 for size in shape):
        raise InvalidRequest(f"{what} has no shape: it is a list of whole numbers.")
    return tuple(shape)


def split(data: memoryview | bytes, count: int, what: str) -> list[bytes]:
    """The elements of a BYTES tensor, each behind its length; raises InvalidRequest where they are not so many."""
    if count == 1 and len(data) >= _LENGTH.size and _LENGTH.unpack_from(data)[0] == len(data) - _LENGTH.size:
        return [bytes(data[_LENGTH.size :])]
    found = list(_elements(data, count))
    if len(found) < count or sum(map(len, found)) + _LENGTH.size * count != len(data):
        raise InvalidRequest(f"{what} is not {count} elements, each behind its length in 4 bytes.")
    return found


def _elements(data: memoryview | bytes, count: int) -> Iterator[bytes]:
    start = 0
    for _ in range(count):
        if start + _LENGTH.size > len(data):
            return
        (size,) = _LENGTH.unpack_from(data, start)
        start += _LENGTH.size
        if start + size > len(data):
            return
        yield bytes(data[start : start + size])
        start += size


def numbers(data: Any, shape: tuple[int, ...], what: str) -> NDArray[numpy.uint8]:
    """UINT8 numbers out of JSON, flat or nested as the shape says; raises InvalidRequest."""
    try:
        found = numpy.asarray(data)
    except (ValueError, OverflowError) as error:
        raise InvalidRequest(f"The data of {what} is neither flat nor nested as its shape.") from error
    if found.dtype.kind not in "iu" or (found.size and not 0 <= int(found.min()) <= int(found.max()) <= 255):
        raise InvalidRequest(f"The data of {what} is not whole numbers from 0 to 255.")
    if found.shape not in (shape, (prod(shape),)):
        raise InvalidRequest(f"The data of {what} is neither flat nor nested as its shape.")
    return found.astype(numpy.uint8).reshape(shape)


def octets(data: memoryview | bytes, shape: tuple[int, ...], what: str) -> NDArray[numpy.uint8]:
    """UINT8 numbers out of bytes; raises InvalidRequest."""
    if len(data) != prod(shape):
        raise InvalidRequest(f"{what} has {len(data)} bytes; its shape takes {prod(shape)}.")
    return numpy.frombuffer(data, numpy.uint8).reshape(shape)


def texts(data: Any, count: int, what: str) -> list[Any]:
    """The elements of a BYTES tensor out of JSON, flat or nested; raises InvalidRequest."""
    found = data
    while isinstance(found, list) and found and all(isinstance(one, list) for one in found):
        found = [one for inner in found for one in inner]
    if not isinstance(found, list) or len(found) != count:
        raise InvalidRequest(f"The data of {what} is not {count} elements, which its shape takes.")
    return found
