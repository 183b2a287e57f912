"""Heatmaps: layer-wise relevance propagation, always on a private copy."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from engram.blocks import AddBlock, ConvBlock
from engram.commons import Commons
from engram.commons_relevance import conserved, gradient
from engram.errors import UnknownComposite
from engram.layout import IMAGE, Node
from engram.network import Engram, Joined, pixels
from engram.pictures import picture

COMPOSITES = (
    "epsilon_plus",
    "epsilon_plus_flat",
    "epsilon_gamma_box",
    "epsilon_alpha2_beta1",
    "excitation_backprop",
    "guided_backprop",
    "gradient_times_input",
)
"""The names that `explain` knows."""

GRADIENTS = ("guided_backprop", "gradient_times_input")
"""Composites that carry a gradient back, not relevance: nothing is conserved, and no relevance has to be shared."""

CONSERVING = ("epsilon_plus", "epsilon_plus_flat", "excitation_backprop")
"""Composites whose relevance sums to the explained logit, but for what a bias alone drives: a unit whose inputs are all
zero has nothing to give its relevance to. The signed rules of the others conserve it only where no unit lacks positive
or negative contributions, which deep networks do not promise."""


@dataclass(frozen=True)
class Heatmap:
    """Why one answer was given: the relevance of every input value for one logit."""

    image: Tensor
    """(C, H, W) uint8, as the model saw it."""
    relevance: Tensor
    """(C, H, W) float32."""
    task: str
    label: str
    logit: float
    """What is explained; the relevance of composites in `CONSERVING` sums to it, less what biases alone drive."""
    composite: str

    @property
    def total(self) -> float:
        """The sum of the relevance."""
        return float(self.relevance.double().sum())

    def png(self, style: str = "overlay") -> bytes:
        """A PNG: relevance alone (`heatmap`), or over the dimmed image (`overlay`). Red speaks for, blue against."""
        return picture(self.image, self.relevance.sum(0), overlay=style == "overlay")


class _Share(torch.autograd.Function):
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
        whole = trunk.abs() + branch.abs()
        share = torch.where(whole > 0, trunk.abs() / whole.clamp_min(torch.finfo(whole.dtype).tiny), 0.5)
        return relevance * share, relevance * (1 - share)


class _SharingAddBlock(AddBlock):
    def join(self, trunk: Tensor, branch: Tensor) -> Tensor:
        return cast(Tensor, _Share.apply(trunk, branch))  # type: ignore[no-untyped-call]  # torch leaves apply untyped


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
    if name not in COMPOSITES:
        raise UnknownComposite(f"no composite is called {name!r}; there are {', '.join(COMPOSITES)}")
    if name == "gradient_times_input":
        return None
    from engram.lrp import composites, rules  # zennit takes a second to import, and only heatmaps need it

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
def relevance_rules(engram: Engram) -> Iterator[Engram]:
    """A private copy of one engram under the rules of `epsilon_plus`: its backward pass carries relevance."""
    private = private_copy(engram, share=True)
    composite = composite_of("epsilon_plus", (), ())
    assert composite is not None, "epsilon_plus is a zennit composite"
    with composite.context(private):
        yield private


def _reads_image(node: Node) -> bool:
    return node.sources == (IMAGE,)


def _feeds_sum(node: Node) -> bool:
    return not node.rectify


class Explainer:
    """Heatmaps for the engrams of one network.

    Rules change a module while they run, so all of it happens on copies that nothing else sees, one heatmap at a time.
    """

    def __init__(self, stack: Sequence[Engram], commons: Commons | None = None) -> None:
        self._stack = tuple(stack)
        self._commons = commons
        self._lock = threading.Lock()
        self._copies: dict[bool, nn.ModuleList] = {}

    def explain(self, image: Tensor, owner: int, target: int, composite: str) -> Heatmap:
        """The heatmap of one logit.

        Parameters
        ----------
        image
            (C, H, W) uint8.
        owner
            Index of the engram whose head is explained; later ones are not computed.
        target
            Index of the class in that head.
        """
        share = composite not in GRADIENTS
        with self._lock:
            reach = self._reach(owner, share)
            rules = composite_of(composite, self._names(reach, _reads_image), self._names(reach, _feeds_sum))
            engram = self._stack[owner]
            given = pixels(image[None]).to(next(engram.parameters()).device).requires_grad_(True)  # (1, C, H, W)
            if rules is None:
                logit, gradient = self._backward(reach, given, target, seeded=False)
                relevance = gradient * given.detach()
            else:
                with rules.context(reach):
                    logit, relevance = self._backward(reach, given, target, seeded=share)
            more, read = self._read(engram, given.detach(), target, composite)
        relevance = (relevance[0] + more).cpu()  # (C, H, W)
        return Heatmap(image.cpu(), relevance, engram.task, engram.classes[target], logit + read, composite)

    def _read(self, engram: Engram, given: Tensor, target: int, composite: str) -> tuple[Tensor | float, float]:
        """Relevance (C, H, W) and logit of what a head reads of the commons."""
        if engram.common is None:
            return 0.0, 0.0
        assert self._commons is not None, "a head that reads the commons is explained with them"
        weight, bias = engram.common.weight[target].detach(), engram.common.bias[target].detach()
        logit = float(self._commons(given)[0] @ weight + bias)
        if composite in GRADIENTS:
            carried = gradient(self._commons, given, weight)
            return (carried * given[0] if composite == "gradient_times_input" else carried), logit
        return conserved(self._commons, given, weight, bias, flat=composite == "epsilon_plus_flat"), logit

    def _reach(self, owner: int, share: bool) -> nn.ModuleList:
        copies = self._copies.setdefault(share, nn.ModuleList())
        for engram in self._stack[len(copies) : owner + 1]:
            copies.append(private_copy(engram, share=share))
        return copies[: owner + 1]

    @staticmethod
    def _names(reach: nn.ModuleList, meant: Callable[[Node], bool]) -> list[str]:
        """Names of every owner's linear modules at the nodes that are meant."""
        layout = cast(Engram, reach[0]).layout
        return [
            f"{number}.blocks.{node.name}.{'conv' if node.operation == 'conv' else 'linear'}"
            for number in range(len(reach))
            for node in layout.nodes
            if node.mixing and meant(node)
        ]

    @staticmethod
    def _backward(reach: nn.ModuleList, given: Tensor, target: int, *, seeded: bool) -> tuple[float, Tensor]:
        joined: Joined = {}
        for engram in reach:
            joined = cast(Engram, engram)(given, joined)
        logits = cast(Engram, reach[-1]).logits(joined)  # (1, classes)
        seed = torch.zeros_like(logits)
        seed[0, target] = logits[0, target].detach() if seeded else 1.0
        (carried,) = torch.autograd.grad(logits, given, seed)
        return float(logits[0, target].detach()), carried.detach()
