"""LRP composites, relevance-sharing sums, private copies under rules."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from engram.errors import UnknownComposite
from engram.nn.blocks import AddBlock, ConvBlock
from engram.nn.network import Engram

COMPOSITES = (
    "epsilon_plus",
    "epsilon_plus_flat",
    "epsilon_gamma_box",
    "epsilon_alpha2_beta1",
    "excitation_backprop",
    "guided_backprop",
    "gradient_times_input",
)
"""The names of all composites."""

DEFAULT_COMPOSITE = "epsilon_plus_flat"
"""What explains unless something else is asked for; a dense first layer sees the whole image at once, over which the
flat rule would give every pixel the same: there it is `epsilon_plus`."""

GRADIENTS = ("guided_backprop", "gradient_times_input")
"""Composites that carry a gradient back, not relevance: nothing is conserved, and no relevance has to be shared."""

CONSERVING = ("epsilon_plus", "epsilon_plus_flat", "excitation_backprop")
"""Composites whose relevance sums to the explained logit, but for what a bias alone drives: a unit whose inputs are all
zero has nothing to give its relevance to. The signed rules of the others conserve it only where no unit lacks positive
or negative contributions, which deep networks do not promise."""


class SharedSum(torch.autograd.Function):
    """A sum whose relevance is divided by magnitude.

    Proportional division, a / (a + b), explodes where the branches cancel; |a| / (|a| + |b|) cannot, and conserves.
    """

    @staticmethod
    def forward(ctx: Any, trunk: Tensor, branch: Tensor) -> Tensor:
        ctx.save_for_backward(trunk, branch)
        return trunk + branch

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor]:
        trunk, branch = ctx.saved_tensors
        (relevance,) = grad_outputs
        return shares_of_sum(trunk, branch, relevance)


def shares_of_sum(trunk: Tensor, branch: Tensor, relevance: Tensor) -> tuple[Tensor, Tensor]:
    """What of a sum's relevance belongs to its two sides, by their magnitude."""
    part = trunk.abs()
    whole = part + branch.abs()
    share = torch.where(whole > 0, part / whole.clamp_min(torch.finfo(whole.dtype).tiny), 0.5)
    return relevance * share, relevance * (1 - share)


class _SharingAddBlock(AddBlock):
    def join(self, trunk: Tensor, branch: Tensor) -> Tensor:
        return cast(Tensor, SharedSum.apply(trunk, branch))  # type: ignore[no-untyped-call]  # torch leaves apply untyped


def private_copy(engram: Engram, *, share: bool) -> Engram:
    """A copy to propagate relevance through: normalisation folded into convolutions, in eval mode.

    Parameters
    ----------
    share
        Whether residual sums divide relevance by magnitude; gradients are not to be divided.
    """
    private = copy.deepcopy(engram).eval()
    for node in private.layout.nodes:
        block = private.block(node)
        if isinstance(block, ConvBlock):
            block.conv = fuse_conv_bn_eval(block.conv, block.norm)
            block.norm = cast(nn.BatchNorm2d, nn.Identity())
        elif isinstance(block, AddBlock) and share:
            private.blocks[node.name] = _SharingAddBlock()
    for parameter in private.parameters():
        parameter.requires_grad_(False)
    return private


def check_composite(name: str) -> None:
    """Raise UnknownComposite for what no composite is called."""
    if name not in COMPOSITES:
        raise UnknownComposite(f"no composite is called {name!r}; there are {', '.join(COMPOSITES)}")


def composite_of(name: str, first: Sequence[str], branches: Sequence[str]) -> Any | None:
    """The zennit composite of a name, or None for the plain gradient.

    Rules for dense layers and convolutions leave biases out of the denominators, so that biases absorb no relevance;
    but for the gamma rule in residual networks, whose signed denominators would then vanish for units that are active
    by their bias alone.

    Parameters
    ----------
    first
        Names of the modules that read the image: every owner has one of its own.
    branches
        Names of the convolutions whose outputs go unrectified into residual sums. Their values have both signs, with
        which signed rules explode: they propagate by z+ whatever the composite.

    Raises
    ------
    UnknownComposite
    """
    check_composite(name)
    if name == "gradient_times_input":
        return None
    # Zennit takes a second to import, and only heatmaps need it.
    from engram.explain.zennit_import import composites, rules

    if name == "guided_backprop":
        return composites.GuidedBackprop()
    nobias = {"zero_params": "bias"}
    epsilon, flat, box = rules.Epsilon(**nobias), rules.Flat(), rules.ZBox(low=0.0, high=1.0, **nobias)
    convolution, dense, entry = {
        "epsilon_plus": (rules.ZPlus(**nobias), epsilon, None),
        "epsilon_plus_flat": (rules.ZPlus(**nobias), epsilon, flat),
        "epsilon_gamma_box": (rules.Gamma(gamma=0.25, **({} if branches else nobias)), epsilon, box),
        "epsilon_alpha2_beta1": (rules.AlphaBeta(alpha=2, beta=1, **nobias), epsilon, None),
        "excitation_backprop": (rules.ZPlus(**nobias), rules.ZPlus(**nobias), None),
    }[name]
    layers = [*composites.layer_map_base(), ((nn.Conv2d,), convolution), ((nn.Linear,), dense)]
    names = [(tuple(branches), rules.ZPlus(**nobias)), *([] if entry is None else [(tuple(first), entry)])]
    return composites.NameLayerMapComposite(name_map=names, layer_map=layers)


@contextmanager
def relevance_rules(private: Engram) -> Iterator[None]:
    """Inside, the backward pass of a private copy carries relevance, by the rules of `epsilon_plus`."""
    composite = composite_of("epsilon_plus", (), ())
    assert composite is not None, "epsilon_plus is a zennit composite"
    with composite.context(private):
        yield
