"""PyTorch modules of one owner at one node of the layout: dense, convolution, pooling, residual sum."""

from __future__ import annotations

from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from engram.nn.layout import Node


def _draw(weight: Tensor, mode: Literal["fan_in", "fan_out"]) -> None:
    """First weights; none where the tensor has no place for them, for which PyTorch would import its whole compiler."""
    if not weight.is_meta:
        nn.init.kaiming_normal_(weight, mode=mode, nonlinearity="relu")


class DenseBlock(nn.Module):
    """The owner's units of a dense layer: (B, values read) -> (B, own units), rectified."""

    def __init__(self, node: Node, incoming: int, units: int) -> None:
        super().__init__()
        self.linear = nn.Linear(incoming, units)
        _draw(self.linear.weight, "fan_in")
        nn.init.zeros_(self.linear.bias)
        self.rectify = nn.ReLU()

    def forward(self, joined: Tensor) -> Tensor:
        return cast(Tensor, self.rectify(self.linear(joined.flatten(1))))  # (B, own units)


class ConvBlock(nn.Module):
    """The owner's channels of a convolution: (B, channels read, H, W) -> (B, own channels, H', W').

    Normalisation belongs to the owner: parameters, running statistics and all.
    """

    def __init__(self, node: Node, incoming: int, units: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(incoming, units, node.kernel, node.stride, node.padding, bias=False)
        _draw(self.conv.weight, "fan_out")
        self.norm = nn.BatchNorm2d(units)
        self.rectify: nn.Module = nn.ReLU() if node.rectify else nn.Identity()

    def normalised(self, joined: Tensor) -> Tensor:
        """What is rectified in the end."""
        return cast(Tensor, self.norm(self.conv(joined)))  # (B, own channels, H', W')

    def forward(self, joined: Tensor) -> Tensor:
        return cast(Tensor, self.rectify(self.normalised(joined)))  # (B, own channels, H', W')


class MaxPoolBlock(nn.Module):
    """Maximum over windows, channel by channel."""

    def __init__(self, node: Node) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(node.kernel, node.stride, node.padding)

    def rectified(self, own: Tensor) -> Tensor:
        """Of what is not rectified yet: the maximum of rectified values and its gradient, from fewer of them."""
        if own.device.type != "cpu" or own.is_contiguous(memory_format=torch.channels_last):
            return cast(Tensor, self.pool(own)).relu_()  # (B, own channels, H', W')
        found: Tensor = _Maximum.apply(own, self.pool)  # type: ignore[no-untyped-call]  # torch leaves apply untyped
        return found.relu_()  # (B, own channels, H', W')

    def normalised(self, own: Tensor, norm: nn.BatchNorm2d) -> Tensor:
        """`rectified` of what a normalisation in training makes of maps, but for the last bits, from fewer values.

        The largest value of a window stays the largest where it is multiplied by none below zero, so that only the
        maxima need to be normalised. (Multiplied by zero, all of a window are the largest; the gradient goes by one.)
        """
        plain = type(norm) is nn.BatchNorm2d and norm.momentum is not None and own.numel() > own.shape[1]
        plain = plain and own.device.type == "cpu" and own.dtype == torch.float32
        if not plain or bool((norm.weight < 0).any()):
            return self.rectified(norm(own))
        if norm.num_batches_tracked is not None:
            norm.num_batches_tracked.add_(1)
        found: Tensor = _NormalisedMaximum.apply(own, norm.weight, norm.bias, norm, self.pool)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        return found  # (B, own channels, H', W')

    def forward(self, own: Tensor) -> Tensor:
        return cast(Tensor, self.pool(own))  # (B, own channels, H', W')


def _sizes(pool: nn.MaxPool2d) -> list[list[int]]:
    """Kernel, stride and padding, as operations take them."""
    return [[cast(int, size)] * 2 for size in (pool.kernel_size, pool.stride, pool.padding)]


class _NormalisedMaximum(torch.autograd.Function):
    """Rectified maxima of normalised maps, of which none but the maxima are normalised; with channels side by side."""

    @staticmethod
    def forward(
        ctx: Any, own: Tensor, weight: Tensor, bias: Tensor, norm: nn.BatchNorm2d, pool: nn.MaxPool2d
    ) -> Tensor:
        own = own.contiguous(memory_format=torch.channels_last)
        assert norm.momentum is not None, "what has none takes a mean of all batches"
        mean, variance = torch.batch_norm_update_stats(own, norm.running_mean, norm.running_var, norm.momentum)
        inverse = (variance + norm.eps).rsqrt()
        scale = weight * inverse
        largest, places = torch.ops.aten.max_pool2d_with_indices(own, *_sizes(pool))
        found = torch.addcmul(_wide(bias - mean * scale), largest, _wide(scale)).relu_()
        ctx.save_for_backward(own, largest, places, found, scale, mean, inverse)
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        own, largest, places, found, scale, mean, inverse = ctx.saved_tensors
        images, channels, height, width = own.shape
        (given,) = grad_outputs
        given = torch.ops.aten.threshold_backward(given.contiguous(memory_format=torch.channels_last), found, 0)
        flat = _flat(given)
        bias = flat.sum(0)
        weight = ((flat * _flat(largest)).sum(0) - mean * bias) * inverse
        count = images * height * width
        by_value = -scale * inverse * weight / count
        everywhere = -scale * bias / count - by_value * mean
        back = torch.addcmul(_wide(everywhere), own, _wide(by_value))
        at = places.permute(0, 2, 3, 1).reshape(images, -1, channels)
        values = (flat * scale).reshape(images, -1, channels)
        back.permute(0, 2, 3, 1).view(images, height * width, channels).scatter_add_(1, at, values)
        return back, weight, bias, None, None


def _wide(values: Tensor) -> Tensor:
    """(C,) as it is laid over maps."""
    return values[None, :, None, None]


def _flat(maps: Tensor) -> Tensor:
    """(B, C, H, W) -> (B x H x W, C)."""
    return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])


class _Maximum(torch.autograd.Function):
    """Maximum and gradient to the bit as pooling gives them, found sooner with the channels of a place side by side.

    Both lie in memory as other maps do, or the layers around would sum in another order.
    """

    @staticmethod
    def forward(ctx: Any, own: Tensor, pool: nn.MaxPool2d) -> Tensor:
        sizes = _sizes(pool)
        turned = own.contiguous(memory_format=torch.channels_last)
        found, places = torch.ops.aten.max_pool2d_with_indices(turned, *sizes)
        ctx.save_for_backward(own, places.contiguous())
        ctx.sizes = sizes
        return cast(Tensor, found.contiguous())

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        own, places = ctx.saved_tensors
        (given,) = grad_outputs
        return torch.ops.aten.max_pool2d_with_indices_backward(given, own, *ctx.sizes, [1, 1], False, places), None


class GlobalAverageBlock(nn.Module):
    """Mean over space: (B, own channels, H, W) -> (B, own channels)."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)

    def forward(self, own: Tensor) -> Tensor:
        return cast(Tensor, self.pool(own)).flatten(1)  # (B, own channels)


class FlattenBlock(nn.Module):
    """(B, own channels, H, W) -> (B, own channels x H x W); the values of one channel stay together."""

    def forward(self, own: Tensor) -> Tensor:
        return own.flatten(1)


class AddBlock(nn.Module):
    """A residual sum of the owner's own channels, rectified."""

    def __init__(self) -> None:
        super().__init__()
        self.rectify = nn.ReLU()

    def join(self, trunk: Tensor, branch: Tensor) -> Tensor:
        """The sum itself, apart so that heatmaps can share relevance between its sides in their own way."""
        return trunk + branch

    def forward(self, trunk: Tensor, branch: Tensor) -> Tensor:
        return cast(Tensor, self.rectify(self.join(trunk, branch)))  # (B, own channels, H, W)


Block = DenseBlock | ConvBlock | MaxPoolBlock | GlobalAverageBlock | FlattenBlock | AddBlock


def build_block(node: Node, incoming: int, units: int) -> Block:
    """The module of one owner at one node.

    Parameters
    ----------
    incoming
        Channels or values that a mixing node reads; of no use to the others.
    units
        Units the owner has in the node's layer.
    """
    match node.operation:
        case "dense":
            return DenseBlock(node, incoming, units)
        case "conv":
            return ConvBlock(node, incoming, units)
        case "max_pool":
            return MaxPoolBlock(node)
        case "global_average":
            return GlobalAverageBlock()
        case "flatten":
            return FlattenBlock()
        case "add":
            return AddBlock()


@torch.no_grad()
def cut_block(node: Node, block: Block, rows: Tensor, columns: Tensor) -> Block:
    """A new block with only these of its units, reading only these channels or values; indices are int64 vectors."""
    narrow = build_block(node, len(columns), len(rows))
    if isinstance(block, DenseBlock) and isinstance(narrow, DenseBlock):
        narrow.linear.weight.copy_(block.linear.weight[rows][:, columns])
        narrow.linear.bias.copy_(block.linear.bias[rows])
    if isinstance(block, ConvBlock) and isinstance(narrow, ConvBlock):
        narrow.conv.weight.copy_(block.conv.weight[rows][:, columns])
        whole = block.norm.state_dict()
        for name, kept in narrow.norm.state_dict().items():
            kept.copy_(whole[name][rows] if whole[name].ndim else whole[name])
    return narrow
