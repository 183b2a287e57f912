"""Operations of frozen blocks, whose rows do not depend on each other within a batch shape.

Maps are in channels-last order, in the precision of the convolutions; vectors are float32. A normalisation is folded
into its convolution, which saves a pass over the map. What kernels were found to compute differently for different rows
is not used: products of matrices, and 1x1 convolutions of channels that do not fill whole vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from engram.config.engines import Precision
from engram.nn.blocks import Block, ConvBlock, DenseBlock
from engram.nn.closures.prepacked_weights import PrepackedWeights
from engram.nn.closures.summation import ConvolutionKind
from engram.nn.layout import Node
from engram.nn.shapes import RowwiseLinear, aligned

LEAST_HALVED = 2
"""Images from which on two halvings take less time than one pooling, and much less where channels come first."""

DTYPES: Mapping[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}

Operation = Callable[..., Tensor]
"""From the values of the sources, each (B, ...), to those of the node."""


class Convolution:
    """A convolution with its normalisation folded in, and rectified: (B, channels read, H, W) -> (B, units, H', W')."""

    def __init__(self, node: Node, block: ConvBlock, dtype: torch.dtype, size: tuple[int, int]) -> None:
        norm, weight = block.norm, block.conv.weight.detach().double()
        assert norm.running_mean is not None, "statistics are always tracked"
        assert norm.running_var is not None, "statistics are always tracked"
        # In double precision and rounded once: the folded weights are the same wherever this runs.
        scale = norm.weight.detach().double() / (norm.running_var.double() + norm.eps).sqrt()  # (units,)
        folded = (weight * scale[:, None, None, None]).to(dtype)
        self.bias = (norm.bias.detach().double() - norm.running_mean.double() * scale).to(dtype)
        """(units,)."""
        self.missing = missing(node, weight.shape[1])
        """Channels of zeros that the weight has beside those of the block."""
        folded = F.pad(folded, (0, 0, 0, 0, 0, self.missing))
        self.weight = folded.contiguous(memory_format=torch.channels_last)
        """(units, channels read, kernel, kernel)."""
        self.rectify = node.rectify
        units, channels = self.weight.shape[:2]
        self.kind = ConvolutionKind(channels, units, node.kernel, node.stride, node.padding, dtype)
        self._prepacked = PrepackedWeights(self.weight, self.kind)
        self._size = size

    def __call__(self, values: Tensor) -> Tensor:
        found = self.linear(values)
        return found.relu_() if self.rectify else found

    def linear(self, values: Tensor) -> Tensor:
        """The same before it is rectified."""
        given = as_read(values, self.kind)
        found = self._prepacked.convolved(given, self.bias)
        if found is None:
            found = F.conv2d(given, self.weight, self.bias, self.kind.stride, self.kind.padding)
        return found  # (B, units, H', W')

    def prepack(self, counts: Sequence[int]) -> None:
        """Put the weights into the order of its kernel for these numbers of images, if that gives the same bytes."""
        for count in counts:
            self._prepacked.prove(count, self._size)


def as_read(values: Tensor, kind: ConvolutionKind) -> Tensor:
    """Maps (B, C, H, W) as they are convolved: (B, channels of the kind, H, W), the last ones zeros."""
    if more := kind.channels - values.shape[1]:
        values = F.pad(values, (0, 0, 0, 0, 0, more))
    if values.dtype is not kind.dtype:
        values = values.to(kind.dtype)
    return values.contiguous(memory_format=torch.channels_last)


def missing(node: Node, channels: int) -> int:
    """Channels of zeros that a 1x1 convolution reads beside its own ones."""
    return aligned(channels) - channels if node.kernel == 1 else 0


class MaxPool:
    """The largest value of each window: (B, C, H, W) -> (B, C, H', W')."""

    def __init__(self, node: Node) -> None:
        self.windows = node.kernel, node.stride, node.padding

    def __call__(self, values: Tensor) -> Tensor:
        if self.windows != (2, 2, 0) or values.shape[0] < LEAST_HALVED:
            return F.max_pool2d(values, *self.windows)
        height, width = (2 * (side // 2) for side in values.shape[2:])
        lines = torch.maximum(values[:, :, 0:height:2], values[:, :, 1:height:2])  # (B, C, H', W)
        return torch.maximum(lines[..., 0:width:2], lines[..., 1:width:2])


class Dense:
    """A dense layer, rectified: (B, values read) -> (B, units)."""

    def __init__(self, block: DenseBlock) -> None:
        self._linear = RowwiseLinear(block.linear.weight, block.linear.bias)

    def __call__(self, values: Tensor) -> Tensor:
        return self._linear(values if values.ndim == 2 else values.flatten(1)).relu_()


class GlobalAverage:
    """The mean of each map: (B, C, H, W) -> (B, C) float32."""

    def __call__(self, values: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(values.float(), 1).flatten(1)


class Flattening:
    """Maps as vectors: (B, C, H, W) -> (B, C * H * W) float32."""

    def __call__(self, values: Tensor) -> Tensor:
        return values.float().flatten(1)


class RectifiedSum:
    """The rectified sum of two maps."""

    def __call__(self, trunk: Tensor, branch: Tensor) -> Tensor:
        return (trunk + branch).relu_()


class Gathering:
    """What is read, side by side: of each earlier owner some channels or values, then all own ones.

    Parameters
    ----------
    chosen
        For each earlier owner int64 indices into its values along dimension 1; None where all are read.
    """

    def __init__(self, chosen: list[Tensor | None]) -> None:
        self.chosen = chosen

    def __call__(self, *values: Tensor) -> Tensor:
        parts = [_selected(part, some) for part, some in zip(values, self.chosen, strict=False)]
        return torch.cat([*parts, *values[len(parts) :]], 1)  # (B, values read, ...)


def _selected(values: Tensor, chosen: Tensor | None) -> Tensor:
    if chosen is None:
        return values
    if values.ndim == 2:
        return values.index_select(1, chosen)
    return values.permute(0, 2, 3, 1).index_select(3, chosen).permute(0, 3, 1, 2)  # stays in channels-last order


def operation_of(node: Node, block: Block, precision: Precision, size: tuple[int, int]) -> Operation:
    """The operation of a frozen block; its weights are copies.

    Parameters
    ----------
    size
        Height and width of the maps that it reads, if it reads maps.
    """
    match node.operation:
        case "conv":
            return Convolution(node, cast(ConvBlock, block), DTYPES[precision], size)
        case "dense":
            return Dense(cast(DenseBlock, block))
        case "max_pool":
            return MaxPool(node)
        case "global_average":
            return GlobalAverage()
        case "flatten":
            return Flattening()
        case "add":
            return RectifiedSum()
