"""Heatmaps of one logit, by layer-wise relevance propagation on private copies."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from engram.errors import InputError
from engram.explain.commons import CommonsRelevance
from engram.explain.hooked import hooked
from engram.explain.preparation import RelevancePlanner, reach_of
from engram.explain.render import drawn, picture
from engram.explain.rules import GRADIENTS, check_composite, private_copy
from engram.nn.commons import Commons
from engram.nn.network import Engram, pixels

STYLES = ("heatmap", "overlay")
"""The names of all styles that a heatmap is drawn in."""

_KEPT = 2
"""Composites whose preparations are kept: each has the weights of all that was explained in forms of its own."""
_KEPT_TASKS = 4
"""Tasks whose explainers are kept where each has a copy of a network that they share."""


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
    goal: float | None = None
    """What the relevance of `integrated_gradients` sums to, but for their steps."""

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

    def pixels(self) -> Tensor:
        """The pixels (H', W', 3) uint8 of the PNG over the dimmed image."""
        return drawn(self.image, self.relevance.sum(0), overlay=True)


class TaskExplainers:
    """Explainers of tasks whose networks are no stack, each made when it is first asked for.

    Parameters
    ----------
    engram_of
        Gives a task's network as an engram that reads nothing of others.
    """

    def __init__(self, engram_of: Callable[[int], Engram]) -> None:
        self._engram_of = engram_of
        self._made: OrderedDict[int, Explainer] = OrderedDict()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[object, ...]:
        """Copied without what was made."""
        return TaskExplainers, (self._engram_of,)

    def explain(self, image: Tensor, owner: int, target: int, composite: str) -> Heatmap:
        """As `Explainer.explain`."""
        with self._lock:
            if owner not in self._made:
                self._made[owner] = Explainer([self._engram_of(owner)])
            explainer = self._made[owner]
            self._made.move_to_end(owner)
            while len(self._made) > _KEPT_TASKS:
                self._made.popitem(last=False)
        return explainer.explain(image, 0, target, composite)


class Explainer:
    """Maker of heatmaps for the engrams of one network, safe in many threads.

    All happens on copies that nothing else sees. They are made once, and so are, for the composites that share
    relevance, the steps that it is propagated in; gradients are found under hooks, one at a time.
    """

    def __init__(self, stack: Sequence[Engram], commons: Commons | None = None) -> None:
        self._stack = tuple(stack)
        self._commons = None if commons is None else CommonsRelevance(commons)
        self._lock = threading.Lock()
        self._copies: dict[tuple[str, bool], Engram] = {}
        self._planners: OrderedDict[str, RelevancePlanner] = OrderedDict()

    def explain(self, image: Tensor, owner: int, target: int, composite: str) -> Heatmap:
        """The heatmap of one logit.

        Parameters
        ----------
        image
            (C, H, W) uint8.
        owner
            Index of the engram whose head is explained; nothing is computed that it does not read.
        target
            Index of the class in that head.

        Raises
        ------
        UnknownComposite
        """
        check_composite(composite)
        engram = self._stack[owner]
        given = pixels(image[None].to(engram.head.weight.device))  # (1, C, H, W)
        logit, carried = self.carried(given, owner, target, composite)
        carried = carried * given if composite == "gradient_times_input" else carried
        more, read = (0.0, 0.0) if engram.common is None else self._read(engram.common, given, target, composite)
        relevance = (carried[0] + more).cpu()  # (C, H, W)
        return Heatmap(image.cpu(), relevance, engram.task, engram.classes[target], logit + read, composite)

    def carried(self, given: Tensor, owner: int, target: int, composite: str) -> tuple[float, Tensor]:
        """The logit, less what is read of commons, and what is carried back from it to its input (1, C, H, W).

        Of `gradient_times_input` that is the gradient alone.
        """
        if composite not in GRADIENTS:
            return self._planner(composite).plan(owner).run(given, target)
        nodes = reach_of(self._stack, owner)
        with self._lock:
            reach = [self._private(engram, share=False) for engram in self._stack if engram.task in nodes]
            return hooked(reach, nodes, given, target, composite)

    def _planner(self, composite: str) -> RelevancePlanner:
        with self._lock:
            if composite not in self._planners:
                private = partial(self._private, share=True)
                self._planners[composite] = RelevancePlanner(self._stack, composite, private)
            self._planners.move_to_end(composite)
            while len(self._planners) > _KEPT:
                self._planners.popitem(last=False)
            return self._planners[composite]

    def _private(self, engram: Engram, *, share: bool) -> Engram:
        key = (engram.task, share)
        if key not in self._copies:
            self._copies[key] = private_copy(engram, share=share)
        return self._copies[key]

    def _read(self, common: nn.Linear, given: Tensor, target: int, composite: str) -> tuple[Tensor, float]:
        """Relevance (C, H, W) and logit of what a head reads of the commons."""
        assert self._commons is not None, "a head that reads the commons is explained with them"
        weight, bias = common.weight[target].detach(), common.bias[target].detach()
        if composite in GRADIENTS:
            carried, logit = self._commons.gradient(given, weight), self._commons.logit(given, weight, bias)
            return carried * given[0] if composite == "gradient_times_input" else carried, logit
        return self._commons.conserved(given, weight, bias, flat=composite == "epsilon_plus_flat")
