"""Weights as safetensors: the header within bounds, the tensors as float32, the hash of the file."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load, load_file
from torch import Tensor

from engram.errors import BackboneTooLarge, DamagedWeights, NotFinite, PickleRefused

MOST_TENSORS = 10_000
MOST_HEADER_BYTES = 4 * 2**20
MOST_PARAMETERS = 1_000_000_000

FLOATS = {"F64", "F32", "F16", "BF16"}
INTEGERS = {"I64", "I32"}
_PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"\x1f\x8b")
_TAR = slice(257, 262)
_FIRST = 512
_MOST_SIDES = 64
"""Of a tensor: what is made of their product has few enough digits to be told."""


class TensorHeader(NamedTuple):
    """Type and shape of a tensor, as the header has them."""

    kind: str
    shape: tuple[int, ...]


class Header(NamedTuple):
    """What a safetensors file says of itself."""

    tensors: dict[str, TensorHeader]
    metadata: dict[str, str]


def read_header(weights: Path | bytes) -> Header:
    """The header, before any tensor is read.

    Raises
    ------
    PickleRefused, DamagedWeights
        for another kind of file.
    BackboneTooLarge
        for a header, a count of tensors or of their elements over the bounds.
    """
    first, length = _beginning(weights, 0, _FIRST), byte_count(weights)
    if first.startswith(_PICKLES) or first[_TAR] == b"ustar":
        raise PickleRefused(
            "the weights are a pickle or an archive, which can run code when they are read: "
            "make a safetensors file of them with `engram backbones convert`"
        )
    size = int.from_bytes(first[:8], "little")
    if length < 8 or size > length - 8 or first[8:9] != b"{":
        raise DamagedWeights("the weights are no safetensors file, or one that was cut off")
    if size > MOST_HEADER_BYTES:
        raise BackboneTooLarge(f"the header has {size} bytes; {MOST_HEADER_BYTES} are allowed")
    try:
        fields = json.loads(_beginning(weights, 8, size))
        metadata = {str(key): str(value) for key, value in fields.pop("__metadata__", {}).items()}
        tensors = {name: _tensor(entry) for name, entry in fields.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedWeights("the header of the weights cannot be read") from error
    if len(tensors) > MOST_TENSORS:
        raise BackboneTooLarge(f"the file has {len(tensors)} tensors; {MOST_TENSORS} are allowed")
    elements = sum(math.prod(one.shape) for one in tensors.values())
    if elements > MOST_PARAMETERS:
        raise BackboneTooLarge(f"the file has {elements} parameters; {MOST_PARAMETERS} are allowed")
    return Header(tensors, metadata)


def read_tensors(weights: Path | bytes) -> dict[str, Tensor]:
    """The tensors, floats as float32.

    Raises
    ------
    DamagedWeights
        where bytes are missing, or lie over one another.
    NotFinite
        for a weight that is infinite or no number.
    """
    try:
        found = load(weights) if isinstance(weights, bytes) else load_file(weights)
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError) as error:
        raise DamagedWeights(f"the weights cannot be read: {error}") from error
    tensors = {name: one.to(torch.float32) if one.is_floating_point() else one for name, one in found.items()}
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise NotFinite(f"{name} has weights that are infinite or no numbers")
    return tensors


def fingerprint(weights: Path | bytes) -> str:
    """SHA-256 of the file, as hexadecimal text."""
    if isinstance(weights, bytes):
        return hashlib.sha256(weights).hexdigest()
    with weights.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def byte_count(weights: Path | bytes) -> int:
    """Length of the file."""
    return len(weights) if isinstance(weights, bytes) else weights.stat().st_size


def _tensor(entry: Mapping[str, Any]) -> TensorHeader:
    shape = tuple(entry["shape"])
    if len(shape) > _MOST_SIDES or not all(type(one) is int and 0 <= one < 2**63 for one in shape):
        raise ValueError("the sides of a tensor are a few whole numbers")
    return TensorHeader(str(entry["dtype"]), shape)


def _beginning(weights: Path | bytes, start: int, count: int) -> bytes:
    if isinstance(weights, bytes):
        return weights[start : start + count]
    with weights.open("rb") as file:
        file.seek(start)
        return file.read(count)
