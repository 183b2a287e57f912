"""Elasticity: the share of its updates that each unit of a shared network follows, from 0 to 1.

The update is scaled, not the gradient: Adam divides by the size of the gradients, so that scaling them changes nothing,
and weight decay and momentum move a weight whose gradient is zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from engram.nn.blocks import ConvBlock, DenseBlock
from engram.nn.network import Engram

Rates = Mapping[str, Tensor]
"""The elasticity of each unit: for each layer (units,) float32 between 0 and 1."""

Blocked = Mapping[str, Tensor]
"""The weights that must stay zero: for each mixing node (own units, values read), True where blocked; and perhaps under
`HEAD` (1, values read), for all classes alike."""

HEAD = "head"


class ElasticNorm(nn.BatchNorm2d):
    """Batch normalisation of which some channels are held, each by its elasticity.

    In training, channels of elasticity 1 are normalised over the batch, as ever. Those that are held run on their
    stored statistics, so that they compute what they will compute when answering; the statistics follow the batches by
    elasticity x momentum, the momentum being that of a long run: a first batch that counts whole is for new channels.
    """

    elasticity: Tensor

    def __init__(self, units: int) -> None:
        super().__init__(units)
        self.register_buffer("elasticity", torch.ones(units), persistent=False)

    def forward(self, given: Tensor) -> Tensor:
        held = self.elasticity < 1  # (C,)
        if not self.training or not bool(held.any()):
            return super().forward(given)  # (B, C, H, W)
        assert self.running_mean is not None, "statistics are always tracked"
        assert self.running_var is not None, "statistics are always tracked"
        assert self.momentum is not None, "the momentum is always given"
        variances, means = torch.var_mean(given, (0, 2, 3), unbiased=False)  # (C,) each
        mean = torch.where(held, self.running_mean.clone(), means)
        variance = torch.where(held, self.running_var.clone(), variances)
        with torch.no_grad():
            count = given.numel() // given.shape[1]
            rate = torch.where(held, self.elasticity * min(self.momentum, NORM_MOMENTUM), self.momentum)
            follow(self.running_mean, means, rate)
            follow(self.running_var, variances * (count / max(1, count - 1)), rate)
        scale = self.weight * (variance + self.eps).rsqrt()  # (C,)
        shift = self.bias - mean * scale
        return given * scale[:, None, None] + shift[:, None, None]  # (B, C, H, W)


@torch.no_grad()
def follow(old: Tensor, new: Tensor, rate: Tensor) -> None:
    """Move `old`, in place, so much of the way to `new`; at rate 0 it keeps its bytes whatever `new` holds."""
    old.copy_(torch.where(rate > 0, torch.lerp(old, new, rate), old))


def hold(engram: Engram, rates: Rates) -> None:
    """Set the elasticity of the normalisations; whoever trains the engram sets that of the weights by
    `ElasticOptimisers`."""
    for node in engram.layout.nodes:
        block = engram.block(node)
        if isinstance(block, ConvBlock):
            assert isinstance(block.norm, ElasticNorm), "channels of a shared network have elastic normalisation"
            block.norm.elasticity.copy_(rates[node.layer])


def weight_of(block: nn.Module) -> nn.Parameter:
    """The weights of a mixing block: (own units, values read) or (own units, channels read, k, k)."""
    assert isinstance(block, DenseBlock | ConvBlock), "only mixing nodes have weights"
    return cast(nn.Parameter, (block.linear if isinstance(block, DenseBlock) else block.conv).weight)


def spread(mask: Tensor, weight: Tensor) -> Tensor:
    """A mask (own units, values read) in as many dimensions as the weights have."""
    return mask.to(weight.device).reshape(*mask.shape, *[1] * (weight.ndim - 2))


NORM_MOMENTUM = 0.1
"""How much the newest batch counts in running statistics; the first batches count equally, so that nothing remains of
the values that statistics start from, which a short run would otherwise be judged with."""
