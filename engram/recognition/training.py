"""Statistics of a new task's images for the recogniser, and the solution over all tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from engram.checkpointing.progress import Reporter
from engram.checkpointing.pytree import Tree
from engram.data.examples import EVALUATION_BATCH, Examples, batches
from engram.nn.batches import at_once, in_parts, pictures_at_once
from engram.nn.commons import Commons
from engram.nn.layout import Layout
from engram.nn.network import pixels
from engram.recognition.class_scatter import ClassScatter
from engram.recognition.recogniser import Recogniser
from engram.recognition.ridge import GramStatistics, PackedGram, RidgeSystem, solve


@dataclass(frozen=True)
class ForwardPass:
    """The outputs of one pass over B images: for each task its features (B, F_t) and logits (B, classes)."""

    features: Sequence[Tensor]
    heads: Sequence[Tensor]

    @classmethod
    def joined(cls, parts: Sequence[ForwardPass]) -> ForwardPass:
        """Of the images of all parts."""
        features = zip(*(part.features for part in parts), strict=True)
        heads = zip(*(part.heads for part in parts), strict=True)
        return cls([torch.cat(several) for several in features], [torch.cat(several) for several in heads])


See = Callable[[Tensor], ForwardPass]
"""Images (B, C, H, W) float32 in [0, 1] on the network's device -> what it sees, on the CPU."""


@dataclass(frozen=True)
class HeldOutPass:
    """The outputs of a network for the M held-out images."""

    features: list[Tensor]
    """(M, F_t) of each task."""
    head: Tensor
    """(M, classes): the new task's logits."""


@dataclass(frozen=True)
class GatheredStatistics:
    """Statistics of a task's images, gathered before the recogniser is updated with them."""

    sums: GramStatistics
    """Of the commons over the images that were learned from."""
    common: Tensor
    """(M, F): features of the commons of the held-out images."""
    held_out: HeldOutPass


def gather(
    commons: Commons, see: See, train: Examples, held_out: Examples, reporter: Reporter, device: torch.device
) -> GatheredStatistics:
    """Look at a task's images through the commons, and at the held-out ones through the network.

    Raises
    ------
    Cancelled
    """
    sums, common = through(commons, train, held_out, reporter, device)
    return GatheredStatistics(sums, common, _held_out_pass(see, held_out, reporter, device))


def through(
    commons: Commons, train: Examples, held_out: Examples, reporter: Reporter, device: torch.device
) -> tuple[GramStatistics, Tensor]:
    """Sums of the commons over the images that were learned from, and the held-out images' features (M, F).

    Raises
    ------
    Cancelled
    """
    sums = _summed(commons, train, reporter, device)
    common = reporter.journal.once(
        "held out", lambda: common_features(commons, held_out, reporter, device, (0.25, 0.3))
    )
    return sums, common


def common_features(
    commons: Commons, examples: Examples, reporter: Reporter, device: torch.device, share: tuple[float, float]
) -> Tensor:
    """(N, F): features of the commons; raises Cancelled."""
    return torch.cat([one for _, one in _common(commons, examples, reporter, device, share)])


def features_of(commons: Commons, images: Tensor, device: torch.device, reporter: Reporter) -> Tensor:
    """(B, F) on the CPU: what learning adds to sums, of images (B, C, H, W) uint8; raises Cancelled."""

    def seen(part: Tensor) -> Tensor:
        return commons.canonical(pixels(part.to(device))).cpu()

    return in_parts(images, pictures_at_once(images), seen, reporter.check)


def seeing_in_parts(see: See, layout: Layout, units: Mapping[str, int]) -> See:
    """The same pass for as many images at a time as fit, of networks with so many units side by side."""
    size = at_once(layout, units, EVALUATION_BATCH)

    def seen(images: Tensor) -> ForwardPass:
        if len(images) <= size:
            return see(images)
        return ForwardPass.joined([see(part) for part in torch.split(images, size)])

    return seen


@dataclass(frozen=True)
class PrefixStatistics:
    """Sums over the prefix features of each task so far."""

    sums: tuple[GramStatistics, ...] | None
    tasks: int
    classes: int

    @classmethod
    def empty(cls, tasks: int, classes: int) -> PrefixStatistics:
        return cls(None, tasks, classes)

    def plus(self, features: Sequence[Tensor], labels: Tensor) -> PrefixStatistics:
        chosen = features[: self.tasks]
        before = self.sums or tuple(GramStatistics.empty(one.shape[1], self.classes) for one in chosen)
        return replace(self, sums=tuple(old.plus(one, labels) for old, one in zip(before, chosen, strict=True)))

    def tensors(self) -> list[tuple[Tensor, Tensor, Tensor]]:
        return [one.tensors() for one in self.sums or ()]

    def of(self, tensors: Sequence[tuple[Tensor, Tensor, Tensor]]) -> PrefixStatistics:
        return replace(self, sums=tuple(GramStatistics(*one) for one in tensors) or None)

    def read(self, see: See, train: Examples, reporter: Reporter, device: torch.device) -> PrefixStatistics:
        """With the images that were learned from, through whatever `see` sees in them."""
        entry = reporter.journal.entry("prefixes")
        if entry.outcome is None:
            done, found = entry.standing or (0, [])
            prefixes = self.of(found)
            for chosen, seen in _seen(see, train, reporter, device, (0.3, 0.6), done):
                prefixes, done = prefixes.plus(seen.features, train.labels[chosen]), done + 1
                entry.pause(partial(_state, done, prefixes.tensors()))
            entry.finish(prefixes.tensors())
        return self.of(entry.outcome)

    def packed(self, sums: GramStatistics) -> PackedGram:
        return replace(sums.packed(), prefixes=tuple(one.packed() for one in self.sums or ()))


def _summed(commons: Commons, train: Examples, reporter: Reporter, device: torch.device) -> GramStatistics:
    """Sums of the commons over the images that were learned from."""
    entry = reporter.journal.entry("commons")
    if entry.outcome is None:
        done, sums = 0, GramStatistics.empty(commons.features, len(train.classes))
        if entry.standing is not None:
            done, sums = entry.standing[0], GramStatistics(*entry.standing[1])
        for chosen, common in _common(commons, train, reporter, device, (0.0, 0.25), done):
            sums, done = sums.plus(common, train.labels[chosen]), done + 1
            entry.pause(partial(_state, done, sums.tensors()))
        entry.finish(sums.tensors())
    return GramStatistics(*entry.outcome)


def _state(done: int, tensors: Tree) -> Tree:
    """How many batches are done, and what they gave."""
    return done, tensors


def _held_out_pass(see: See, held_out: Examples, reporter: Reporter, device: torch.device) -> HeldOutPass:
    """Every task's features of the held-out images, and the new task's logits."""

    def look() -> tuple[list[Tensor], Tensor]:
        passes = [seen for _, seen in _seen(see, held_out, reporter, device, (0.6, 0.7))]
        features = [torch.cat(parts) for parts in zip(*(seen.features for seen in passes), strict=True)]
        return features, torch.cat([seen.heads[-1] for seen in passes])

    return HeldOutPass(*reporter.journal.once("judged", look))


def solved(recogniser: Recogniser, sums: Sequence[PackedGram], system: RidgeSystem) -> Recogniser:
    """Weights, scatter and detectors anew, from the sums of all tasks in order and the regression over them."""
    profiles = list(recogniser.profiles)
    # Sums from before there were detectors lack the negatives that a detector needs; their tasks have none.
    for number in range(len(profiles) - 1):
        pieces = [later.prefixes[number] for later in sums[number:] if len(later.prefixes) > number]
        if len(pieces) == len(profiles) - number and len(sums) == len(profiles):
            profiles[number] = replace(profiles[number], detector=solve(pieces, by_class=system.by_class))
    weights, scatter = system.weights().float(), ClassScatter.of(sums, system)
    return replace(recogniser, weights=weights, scatter=scatter, profiles=tuple(profiles))


@torch.no_grad()
def _common(
    commons: Commons,
    examples: Examples,
    reporter: Reporter,
    device: torch.device,
    share: tuple[float, float],
    done: int = 0,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of indices after the first `done`, with features of the commons (B, F)."""
    commons = commons.to(device)
    for chosen in _left(examples, done, reporter, share):
        yield chosen, features_of(commons, examples.images[chosen], device, reporter)


@torch.no_grad()
def _seen(
    see: See, examples: Examples, reporter: Reporter, device: torch.device, share: tuple[float, float], done: int = 0
) -> Iterator[tuple[Tensor, ForwardPass]]:
    """Batches of indices after the first `done`, and what one pass sees."""
    for chosen in _left(examples, done, reporter, share):
        yield chosen, see(pixels(examples.images[chosen].to(device)))


def _left(examples: Examples, done: int, reporter: Reporter, share: tuple[float, float]) -> Iterator[Tensor]:
    """Batches of indices after the first `done`, each told of when it is worked on."""
    for number, chosen in enumerate(batches(len(examples), EVALUATION_BATCH)):
        if number >= done:
            yield chosen
            within = min(1.0, (number + 1) * EVALUATION_BATCH / len(examples))
            reporter.report("recognising", share[0] + (share[1] - share[0]) * within)
