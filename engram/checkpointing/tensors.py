"""Named tensors with a JSON header as deterministic safetensors bytes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from engram.errors import DamagedSnapshot, UnsupportedFormat

FORMAT = 1
"""Version of nearly everything written. A reader refuses what is newer."""

LATER = 2
"""Version of what holds a field that releases which know `FORMAT` alone would pass over, and answer otherwise."""

LATEST = 3
"""Version of what holds a field that releases which know `LATER` would pass over."""

NEWEST = 4
"""Version of what holds a field that releases which know `LATEST` would pass over."""

_KEY = "engram"


def content_hash(data: bytes) -> str:
    """SHA-256 of bytes, in hex, which is their name."""
    return hashlib.sha256(data).hexdigest()


def pack(kind: str, about: Mapping[str, object], tensors: Mapping[str, Tensor], version: int = FORMAT) -> bytes:
    """Safetensors bytes of tensors, under a header with their kind and more about them.

    All of the header is one JSON string: safetensors keeps several metadata keys in no certain order, which would give
    the same content another hash each time.
    """
    header = json.dumps({"format": version, "kind": kind, **about}, sort_keys=True, separators=(",", ":"))
    given = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return safetensors.torch.save(given, {_KEY: header})


def unpack(kind: str, data: bytes) -> tuple[dict[str, object], dict[str, Tensor]]:
    """The inverse of `pack`.

    Tensors are copied out of the buffer: it has any alignment, and kernels may round differently on unaligned memory.

    Raises
    ------
    DamagedSnapshot, UnsupportedFormat
    """
    header, found, tensors = _opened(kind, data)
    if found != kind:
        raise DamagedSnapshot(f"expected a {kind} file and found a {found} file")
    return header, {name: tensor.clone() for name, tensor in tensors.items()}


def kind_of(data: bytes) -> str:
    """The kind that `pack` was given for these bytes.

    Raises
    ------
    DamagedSnapshot, UnsupportedFormat
    """
    return _opened("model", data)[1]


def _opened(wanted: str, data: bytes) -> tuple[dict[str, object], str, dict[str, Tensor]]:
    """Header, kind and tensors; `wanted` is what errors call it."""
    try:
        tensors = safetensors.torch.load(data)
        length = int.from_bytes(data[:8], "little")
        header = json.loads(json.loads(data[8 : 8 + length])["__metadata__"][_KEY])
        found, version = header.pop("kind"), header.pop("format")
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedSnapshot(f"these bytes are no {wanted} file: {error}") from error
    if version not in (FORMAT, LATER, LATEST, NEWEST):
        raise UnsupportedFormat(f"this {wanted} was written in format {version}; this version reads up to {NEWEST}")
    return header, str(found), tensors
