"""Taps in a network: what its levels put out and its classifier reads, of one forward."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from engram.nn.pretrained.architecture import Place


class Seen(NamedTuple):
    """What a network sees in images."""

    levels: tuple[Tensor, ...]
    """Maps, float32 (B, channels, h, w), of each level; tokens lie as their patches do."""
    features: Tensor
    """What the classifier reads, float32 (B, features)."""
    logits: Tensor | None
    """Float32 (B, outputs); None without a classifier."""


class _Tap:
    """A hook that keeps a tensor in the slots of the thread that asked; copies of the module have it closed."""

    def __init__(self, slots: threading.local, name: str) -> None:
        self._slots: threading.local | None = slots
        self._name = name

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        closed = type(self)(threading.local(), self._name)
        closed._slots = None
        return closed

    def keep(self, tensor: Tensor) -> None:
        kept: dict[str, Tensor] | None = getattr(self._slots, "kept", None)
        if kept is not None:
            kept[self._name] = tensor


class _Output(_Tap):
    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self.keep(output)


class _Input(_Tap):
    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.keep(inputs[0])


_FEATURES = ""
"""No module but the whole has this path."""


class Taps:
    """Taps in a network, which any number of threads may read through at once."""

    def __init__(self, module: nn.Module, places: Sequence[Place], classifier: str) -> None:
        self._module = module
        self._places = tuple(places)
        self._slots = threading.local()
        for place in places:
            module.get_submodule(place.name).register_forward_hook(_Output(self._slots, place.name))
        module.get_submodule(classifier).register_forward_pre_hook(_Input(self._slots, _FEATURES))

    def look(self, prepared: Tensor) -> Seen:
        """What the network sees in its input, float32 (B, 3, size, size); logits also where it has no classifier."""
        kept: dict[str, Tensor] = {}
        self._slots.kept = kept
        try:
            logits = self._module(prepared)
        finally:
            self._slots.kept = None
        levels = tuple(as_maps(kept[place.name], place).contiguous() for place in self._places)
        return Seen(levels, torch.flatten(kept[_FEATURES], 1), logits)


def as_maps(output: Tensor, place: Place) -> Tensor:
    """Maps (B, C, h, w) of what a module put out."""
    if place.layout == "channels_last":
        return output.permute(0, 3, 1, 2)  # (B, h, w, C) -> (B, C, h, w)
    if place.layout == "maps":
        return output
    tokens = output[:, place.prefix :].transpose(1, 2)  # (B, C, h * w)
    side = math.isqrt(tokens.shape[2])
    if side * side != tokens.shape[2]:
        raise ValueError(f"{place.name} puts out {tokens.shape[2]} tokens of patches, which are no square")
    return tokens.reshape(*tokens.shape[:2], side, side)
