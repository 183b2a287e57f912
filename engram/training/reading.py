"""The choice of what an engram reads: whose units it may try, and how much the closure may cost."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engram.nn.network import Engram, Network
from engram.nn.reads import Reads, belonging, whole


@dataclass(frozen=True)
class ReadingChoice:
    """Whom a new engram may read, and how far.

    Parameters
    ----------
    candidates
        Names of earlier tasks, the most promising first; what training costs depends on their closures alone.
    closure
        Bound on the multiply-adds of the closure, as a multiple of those of the engram's own blocks and head if they
        read nothing of others. What is read does not raise it: an answer of the hundredth task costs as much as one of
        the first.
    """

    candidates: tuple[str, ...] = ()
    closure: float = 2.0

    def within(self, network: Network, engram: Engram) -> bool:
        """Whether the closure of an engram keeps the bound."""
        found = network.closure_with(engram)
        return found.total <= self.closure * found.alone

    def first(self, network: Network, task: str, classes: Sequence[str], units: Mapping[str, int]) -> Reads:
        """All units of those candidates, one after the other, with which an untrained engram keeps the bound."""
        reads: Reads = ()
        stack = {engram.task: engram for engram in network.stack}
        for name in self.candidates:
            more = (*reads, whole(name, stack[name].units))
            with torch.device("meta"):  # only its sizes are wanted
                engram = Engram.reading(network.layout, task, classes, more, units)
            if self.within(network, engram):
                reads = more
        return reads

    def bounded(self, network: Network, engram: Engram, worth: Mapping[str, float]) -> Engram:
        """The engram without as many of the owners that it reads as are too much, those of the least worth first."""
        while engram.reads and not self.within(network, engram):
            least = min(engram.reads, key=lambda read: worth[read.owner]).owner
            engram = without(engram, {least})
        return engram


def earned(accuracy: float, images: int, tolerance: float) -> float:
    """The accuracy from which an engram that reads is taken in the place of one that does not.

    It is the other's, and more than pruning may cost, and more than one standard error of so many images.
    """
    spread = math.sqrt(max(0.0, accuracy * (1 - accuracy)) / images)  # a mean of ones may come out above one
    return accuracy + max(tolerance, spread)


def without(engram: Engram, owners: Collection[str]) -> Engram:
    """The same engram, reading nothing of some owners."""
    assert engram.reads is not None, "an engram that reads everything goes on doing so"
    own, earlier = {}, {}
    for layer in engram.layout.layers:
        over = torch.zeros(engram.earlier[layer], dtype=torch.bool)
        for owner in owners:
            over |= belonging(engram.reads, layer, owner)
        own[layer], earlier[layer] = torch.arange(engram.units[layer]), (~over).nonzero()[:, 0]
    return engram.narrowed(own, earlier)


def worth(engram: Engram, scores: Mapping[str, Tensor], keep: Mapping[str, Tensor]) -> dict[str, float]:
    """For each owner that is read the sum of its units' scores, of those that are kept.

    Parameters
    ----------
    scores, keep
        For each layer of what is read and then of the own units, as `score_units` and `choose` give them.
    """
    reads, found = engram.reads or (), {}
    for read in reads:
        total = 0.0
        for layer, kept in keep.items():
            mine = belonging(reads, layer, read.owner)  # (units read,)
            earlier = kept[kept < len(mine)]
            total += float(scores[layer][earlier[mine[earlier]]].sum())
        found[read.owner] = total
    return found
