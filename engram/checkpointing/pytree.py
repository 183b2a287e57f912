"""Nested values of tensors, numbers and strings as bytes, for checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from engram.checkpointing.tensors import pack, unpack
from engram.errors import DamagedSnapshot

Tree = Any
"""None, bool, int, float, str, bytes or Tensor; or a list, a tuple or a dict (whose keys are str or int) of trees."""

_TENSOR, _BYTES, _TUPLE, _DICT = "tensor", "bytes", "tuple", "dict"


def dump(kind: str, tree: Tree) -> bytes:
    """A tree as safetensors bytes, never pickled; equal trees give equal bytes.

    Raises
    ------
    TypeError
        for what is no tree.
    """
    tensors: dict[str, Tensor] = {}
    return pack(kind, {"tree": _flat(tree, tensors)}, tensors)


def load(kind: str, data: bytes) -> Tree:
    """The inverse of `dump`: the same values, tensors being contiguous and on the CPU.

    Raises
    ------
    DamagedSnapshot, UnsupportedFormat
    """
    about, tensors = unpack(kind, data)
    try:
        return _grown(about["tree"], tensors)
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedSnapshot(f"this {kind} lacks {error}") from error


def contiguous(tree: Tree) -> Tree:
    """The tree with every tensor as `load` would give it: a product over other strides may round differently."""
    match tree:
        case Tensor():
            return tree.contiguous()
        case list():
            return [contiguous(part) for part in tree]
        case tuple():
            return tuple(contiguous(part) for part in tree)
        case Mapping():
            return {key: contiguous(part) for key, part in tree.items()}
        case _:
            return tree


def _flat(tree: Tree, tensors: dict[str, Tensor]) -> object:
    """The tree in JSON's own terms, its tensors by number in `tensors`."""
    match tree:
        case None | bool() | int() | float() | str():
            return tree
        case Tensor():
            name = str(len(tensors))
            # A copy: tensors that share memory are refused by the format.
            tensors[name] = tree.detach().to("cpu", copy=True).contiguous()
            return {_TENSOR: name}
        case bytes():
            name = str(len(tensors))
            tensors[name] = torch.frombuffer(bytearray(tree), dtype=torch.uint8)
            return {_BYTES: name}
        case list():
            return [_flat(part, tensors) for part in tree]
        case tuple():
            return {_TUPLE: [_flat(part, tensors) for part in tree]}
        case Mapping():
            return {_DICT: [[_key(key), _flat(part, tensors)] for key, part in tree.items()]}
        case _:
            raise TypeError(f"a {type(tree).__name__} cannot be kept in a checkpoint")


def _key(key: object) -> str | int:
    if not isinstance(key, str | int):
        raise TypeError(f"a {type(key).__name__} cannot be a key in a checkpoint")
    return key


def _grown(flat: object, tensors: Mapping[str, Tensor]) -> Tree:
    match flat:
        case list():
            return [_grown(part, tensors) for part in flat]
        case {"tensor": name}:
            return tensors[name]
        case {"bytes": name}:
            return tensors[name].numpy().tobytes()
        case {"tuple": list(parts)}:
            return tuple(_grown(part, tensors) for part in parts)
        case {"dict": list(pairs)}:
            return {key: _grown(part, tensors) for key, part in pairs}
        case dict():
            raise ValueError("a known kind of node")
        case _:
            return flat
