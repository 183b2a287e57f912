"""Prepacked weights: those of a convolution, once put into the order that its kernel reads.

Without them PyTorch puts them into that order again for every batch, which of a few images takes as long as the
convolution itself.
"""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from engram.nn.closures.summation import ConvolutionKind, shown

FEWEST: dict[torch.dtype, int] = {torch.float32: 2, torch.bfloat16: 1}
"""Images from which on PyTorch leaves convolutions to the library whose order it is."""

MOST_IMAGES = 8
"""Up to which weights are prepacked: of more, a convolution takes so long that it hardly matters."""


class PrepackedWeights:
    """The weight of a convolution (units, channels, kernel, kernel), for those shapes in which it was tried.

    Parameters
    ----------
    weight
        In channels-last order.
    """

    def __init__(self, weight: Tensor, kind: ConvolutionKind) -> None:
        self._weight = weight
        self._kind = kind
        self._packed: Tensor | None = None
        self._proved: set[tuple[torch.Size, int]] = set()

    def prove(self, shape: torch.Size) -> None:
        """Use them for maps (B, channels, H, W) with the threads that there are, if they give the same bytes."""
        if same_bytes(self._kind, shape, torch.get_num_threads()):
            if self._packed is None:
                self._packed = _packed(self._weight, self._kind, shape)
            self._proved.add((shape, torch.get_num_threads()))

    def convolved(self, values: Tensor, bias: Tensor) -> Tensor | None:
        """(B, channels, H, W) -> (B, units, H', W'), both channels-last; None where they were not tried."""
        if self._packed is None or (values.shape, torch.get_num_threads()) not in self._proved:
            return None
        return _convolved(values, self._packed, bias, self._kind)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_packed": None, "_proved": set()}  # a tensor in such an order cannot be copied


@cache
def same_bytes(kind: ConvolutionKind, shape: torch.Size, threads: int) -> bool:
    """Whether a convolution has the same bytes with prepacked weights, on this machine.

    It is so where the kernel is the same one, which no library promises.

    Parameters
    ----------
    shape
        Of the maps (B, channels, H, W).
    threads
        Those there are: what is found out counts for these alone.
    """
    del threads
    if not FEWEST.get(kind.dtype, MOST_IMAGES + 1) <= shape[0] <= MOST_IMAGES:
        return False
    for weight, bias, maps in shown(kind, shape[0], shape[2:]):
        values = maps.to(kind.dtype).contiguous(memory_format=torch.channels_last)
        plain = F.conv2d(values, weight, bias, kind.stride, kind.padding)
        try:
            found = _convolved(values, _packed(weight, kind, shape), bias, kind)
        except (RuntimeError, AttributeError):  # another PyTorch, or one without this library
            return False
        if not torch.equal(found, plain):
            return False
    return True


def _packed(weight: Tensor, kind: ConvolutionKind, shape: torch.Size) -> Tensor:
    padding, stride = [kind.padding] * 2, [kind.stride] * 2
    # Of which the library's own compiler makes the same use; PyTorch has no public name for it.
    found: Tensor = torch.ops.mkldnn._reorder_convolution_weight(weight, padding, stride, [1, 1], 1, list(shape))
    return found


def _convolved(values: Tensor, packed: Tensor, bias: Tensor, kind: ConvolutionKind) -> Tensor:
    padding, stride = [kind.padding] * 2, [kind.stride] * 2
    found: Tensor = torch.ops.mkldnn._convolution_pointwise(
        values, packed, bias, padding, stride, [1, 1], 1, "none", [], ""
    )
    return found
