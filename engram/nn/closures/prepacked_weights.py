"""Prepacked weights: those of a convolution, once put into the order that its kernel reads.

Without them PyTorch puts them into that order again for every batch, which of a few images takes up to as long as the
convolution itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from engram.nn.closures.summation import ConvolutionKind, ShownConvolution, alike

FEWEST: dict[torch.dtype, int] = {torch.float32: 2, torch.bfloat16: 1}
"""Images from which on PyTorch leaves convolutions of any size to the library whose order it is."""

MOST_IMAGES = 8
"""Up to which weights are prepacked: of more, a convolution takes so long that it hardly matters."""

MANY_WEIGHTS, MOST_BY_FEW = 2**14, 4
"""Weights of which fewer are prepacked for so many images at most: of more, what it saves is a twentieth."""

LEAST_WEIGHTS = 2**8
"""From which on they are: convolutions by fewer are hardly any work beside the trial."""

MOST_KINDS = 4096
"""Kinds and batches of which it is remembered whether bytes are the same: networks are pruned to many widths."""


class PrepackedWeights:
    """The weight of a convolution (units, channels, kernel, kernel), for those shapes in which it was tried.

    Whoever changes flags of PyTorch afterwards, as those of the library or of automatic precision, gets other bytes of
    a plain convolution, and the same of these.

    Parameters
    ----------
    weight
        In channels-last order.
    """

    def __init__(self, weight: Tensor, kind: ConvolutionKind) -> None:
        self._weight = weight
        self._kind = kind
        self._packed: Tensor | None = None
        self._proved: set[tuple[torch.Size, tuple[int, ...], int]] = set()

    def prove(self, count: int, size: Sequence[int]) -> None:
        """Use them for so many maps of a size, with the threads that there are, if they give the same bytes."""
        if not hasattr(torch.ops.mkldnn, "_convolution_pointwise"):  # another PyTorch, or one without this library
            return
        kind, shape, threads = self._kind, torch.Size((count, self._kind.channels, *size)), torch.get_num_threads()
        weights = kind.channels * kind.units * kind.kernel**2
        most = MOST_IMAGES if weights >= MANY_WEIGHTS else MOST_BY_FEW
        if weights < LEAST_WEIGHTS or not FEWEST.get(kind.dtype, most + 1) <= count <= most:
            return
        try:
            if same_bytes(kind, shape, threads):
                if self._packed is None:
                    self._packed = _packed(self._weight, kind, size)
                self._proved.add((shape, _maps(shape, kind.dtype).stride(), threads))
        except (RuntimeError, MemoryError):  # there is too little memory for a trial
            return

    def convolved(self, values: Tensor, bias: Tensor) -> Tensor | None:
        """(B, channels, H, W) -> (B, units, H', W'), both channels-last; None where they were not tried."""
        if self._packed is None or (values.shape, values.stride(), torch.get_num_threads()) not in self._proved:
            return None
        return _convolved(values, self._packed, bias, self._kind)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_packed": None, "_proved": set()}  # a tensor in such an order cannot be copied


@lru_cache(MOST_KINDS)
def same_bytes(kind: ConvolutionKind, shape: torch.Size, threads: int) -> bool:
    """Whether a convolution has the same bytes with prepacked weights, on this machine.

    It is so where the kernel is the same one, which no library promises.

    Parameters
    ----------
    shape
        Of the maps (B, channels, H, W).
    threads
        Those there are: what is found out counts for these alone.

    Raises
    ------
    RuntimeError, MemoryError
        There is too little memory for a trial.
    """
    del threads
    lies: tuple[int, ...] = ()
    same_order = True

    def plain(shown: ShownConvolution) -> Tensor:
        nonlocal lies
        values = _maps(shape, kind.dtype).copy_(shown.maps)
        found = F.conv2d(values, shown.weight, shown.bias, kind.stride, kind.padding)
        lies = found.stride()
        return found

    def prepacked(shown: ShownConvolution) -> Tensor:
        nonlocal same_order
        values = _maps(shape, kind.dtype).copy_(shown.maps)
        found = _convolved(values, _packed(shown.weight, kind, shape[2:]), shown.bias, kind)
        same_order = same_order and found.stride() == lies  # by which others choose their kernels
        return found

    return alike(kind, shape, plain, prepacked) and same_order


def _maps(shape: torch.Size, dtype: torch.dtype) -> Tensor:
    """Maps (B, channels, H, W) in channels-last order."""
    return torch.empty(shape, dtype=dtype, memory_format=torch.channels_last)


def _packed(weight: Tensor, kind: ConvolutionKind, size: Sequence[int]) -> Tensor:
    """In the order for most images, which is the one for fewer."""
    padding, stride, shape = [kind.padding] * 2, [kind.stride] * 2, [MOST_IMAGES, kind.channels, *size]
    # Of which PyTorch's own compiler makes the same use; there is no public name for it.
    found: Tensor = torch.ops.mkldnn._reorder_convolution_weight(weight, padding, stride, [1, 1], 1, shape)
    return found


def _convolved(values: Tensor, packed: Tensor, bias: Tensor, kind: ConvolutionKind) -> Tensor:
    padding, stride = [kind.padding] * 2, [kind.stride] * 2
    found: Tensor = torch.ops.mkldnn._convolution_pointwise(
        values, packed, bias, padding, stride, [1, 1], 1, "none", [], ""
    )
    return found
