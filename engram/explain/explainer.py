"""Heatmaps of one logit, by layer-wise relevance propagation on private copies."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from engram.errors import InputError
from engram.explain.commons import conserved, gradient
from engram.explain.render import picture
from engram.explain.rules import GRADIENTS, composite_of, private_copy
from engram.nn.closures.closure import closure_of
from engram.nn.commons import Commons
from engram.nn.layout import IMAGE, Node
from engram.nn.network import Engram, Joined, pixels
from engram.nn.reads import gathered

STYLES = ("heatmap", "overlay")
"""The names of all styles that a heatmap is drawn in."""


@dataclass(frozen=True)
class Heatmap:
    """The relevance of every input value for one logit."""

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
        """A PNG: relevance alone (`heatmap`), or over the dimmed image (`overlay`). Red speaks for, blue against.

        Raises
        ------
        InputError
            for an unknown style.
        """
        if style not in STYLES:
            raise InputError(f"no style is called {style!r}; there are {', '.join(STYLES)}")
        return picture(self.image, self.relevance.sum(0), overlay=style == "overlay")


def _reads_image(node: Node) -> bool:
    return node.sources == (IMAGE,)


def _feeds_sum(node: Node) -> bool:
    return not node.rectify


class Explainer:
    """Maker of heatmaps for the engrams of one network.

    Rules change a module while they run, so all of it happens on copies that nothing else sees, one heatmap at a time.
    """

    def __init__(self, stack: Sequence[Engram], commons: Commons | None = None) -> None:
        self._stack = tuple(stack)
        self._commons = commons
        self._lock = threading.Lock()
        self._copies: dict[tuple[str, bool], Engram] = {}

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
            engram, closure = self._stack[owner], self._closure(owner)
            reach = self._reach(self._stack[: owner + 1], closure, share)
            rules = composite_of(composite, self._names(reach, _reads_image), self._names(reach, _feeds_sum))
            given = pixels(image[None]).to(next(engram.parameters()).device).requires_grad_(True)  # (1, C, H, W)
            if rules is None:
                logit, gradient = self._backward(reach, closure, given, target, seeded=False)
                relevance = gradient * given.detach()
            else:
                with rules.context(reach):
                    logit, relevance = self._backward(reach, closure, given, target, seeded=share)
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

    def _closure(self, owner: int) -> dict[str, Collection[str]] | None:
        """For each owner that is computed the names of its nodes; None where all of all before the owner are."""
        engram = self._stack[owner]
        if engram.reads is None:
            return None
        return dict(closure_of(engram, {one.task: one for one in self._stack}).nodes)

    def _reach(
        self, stack: Sequence[Engram], closure: Mapping[str, Collection[str]] | None, share: bool
    ) -> nn.ModuleList:
        """Private copies of all that are computed, the explained one last."""
        copies = nn.ModuleList()
        for engram in stack:
            if closure is None or engram.task in closure:
                key = (engram.task, share)
                if key not in self._copies:
                    self._copies[key] = private_copy(engram, share=share)
                copies.append(self._copies[key])
        return copies

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
    def _backward(
        reach: nn.ModuleList, closure: Mapping[str, Collection[str]] | None, given: Tensor, target: int, *, seeded: bool
    ) -> tuple[float, Tensor]:
        joined: Joined = {}
        values: dict[tuple[str, str], Tensor] = {}
        for engram in (cast(Engram, one) for one in reach):
            if closure is None or engram.reads is None:
                joined = engram(given, joined)
                continue
            own: dict[str, Tensor] = {}
            joined = engram(given, gathered(engram.layout, engram.reads, values), own, closure[engram.task])
            values |= {(engram.task, name): value for name, value in own.items()}
        logits = cast(Engram, reach[-1]).logits(joined)  # (1, classes)
        seed = torch.zeros_like(logits)
        seed[0, target] = logits[0, target].detach() if seeded else 1.0
        (carried,) = torch.autograd.grad(logits, given, seed)
        return float(logits[0, target].detach()), carried.detach()
