"""Teaching the recogniser a task, and asking it, for every method whose tasks have features and heads of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from engram.commons import Commons
from engram.data import Examples
from engram.density import Density
from engram.network import pixels
from engram.progress import Reporter
from engram.recogniser import Reading, Recogniser, fitted_temperature
from engram.sums import PackedSums, Sums, solve
from engram.training import EVALUATION_BATCH, batches


@dataclass(frozen=True)
class Seen:
    """What one pass of a network sees in B images: for each task its features (B, F_t) and logits (B, classes)."""

    features: Sequence[Tensor]
    heads: Sequence[Tensor]


See = Callable[[Tensor], Seen]
"""Images (B, C, H, W) float32 in [0, 1] on the network's device -> what it sees, on the CPU."""


@dataclass(frozen=True)
class Taught:
    """A recogniser that knows one task more, the commons it reads, and the task's sums.

    Of the held-out images, `accuracy` is the share that the task's head answers right, `recognised` the share that is
    given to the task among all tasks so far, `answered` the share that is given to the task and to the right class.
    """

    commons: Commons
    recogniser: Recogniser
    sums: PackedSums
    hits: Tensor
    """(M,) bool: which held-out images the task's head answers right."""
    accuracy: float
    recognised: float
    answered: float


@dataclass(frozen=True)
class Gathered:
    """What the commons show of a task, where a method needed to know it before the recogniser is taught."""

    sums: Sums
    """Over the images that were learned from."""
    common: Tensor
    """(M, F): features of the held-out images."""
    head: Tensor | None = None
    """(M, classes): the task's logits for the held-out images, where `see` does not give them whole."""


def gather(commons: Commons, train: Examples, held_out: Examples, reporter: Reporter, device: torch.device) -> Gathered:
    """Look at a task's images through the commons alone."""
    sums = Sums.empty(commons.features, len(train.classes))
    for chosen, common in _common(commons, train, reporter, device, (0.0, 0.25)):
        sums = sums.plus(common, train.labels[chosen])
    held = [common for _, common in _common(commons, held_out, reporter, device, (0.25, 0.3))]
    return Gathered(sums, torch.cat(held))


def teach(
    commons: Commons,
    recogniser: Recogniser,
    earlier: Sequence[PackedSums],
    see: See,
    task: str,
    train: Examples,
    held_out: Examples,
    reporter: Reporter,
    device: torch.device,
    gathered: Gathered | None = None,
    *,
    chained: bool = False,
    over_commons: bool = False,
) -> Taught:
    """Teach the recogniser the task that `see` sees last.

    Parameters
    ----------
    earlier
        The sums of the tasks the recogniser knows; none of what is given is changed.
    gathered
        What `gather` gave for the same images, if it was called already.
    over_commons
        Whether the density is one over the commons instead of over the task's own features.
    chained
        Whether earlier tasks' detectors learn to tell this one from theirs: only where their features never change.

    Raises
    ------
    Cancelled
    """
    classes = len(train.classes)
    commons = commons.fitted(train.images).eval()
    gathered = gathered or gather(commons, train, held_out, reporter, device)
    sums, common = gathered.sums, gathered.common
    tasks = len(recogniser.readings) + 1
    own, prefixes = _learned_from(see, train, tasks if chained else 0, reporter, device)
    features, last = _judged_by(see, held_out, reporter, device)
    head = last if gathered.head is None else gathered.head  # (M, classes)
    if over_commons:
        density, looked_at = Density.from_sums(sums, common), [common] * tasks
    else:
        density, looked_at = Density.fit(own, train.labels, classes, features[-1]), features
    reading = Reading(task, classes, density, fitted_temperature(head, held_out.labels))
    recogniser = replace(recogniser, readings=(*recogniser.readings, reading))
    recogniser = _solved(recogniser, (*earlier, prefixes.packed(sums)))
    reporter.report("recognising", 0.85)
    seen_by = (recogniser.class_scores(common), recogniser.distances(looked_at), recogniser.detections(features))
    recogniser = recogniser.calibrated(*seen_by)
    right = recogniser.log_probabilities(*seen_by).argmax(1) == tasks - 1
    hit = head.argmax(1) == held_out.labels
    # What was held out has served its purpose, and exact sums only gain by it.
    packed = prefixes.plus(features, held_out.labels).packed(sums.plus(common, held_out.labels))
    recogniser = _solved(recogniser, (*earlier, packed))
    reporter.report("recognising", 1.0)
    shares = [float(share.double().mean()) for share in (hit, right, right & hit)]
    return Taught(commons, recogniser, packed, hit, *shares)


@dataclass(frozen=True)
class _Prefixes:
    """Sums over the prefix features of each task so far."""

    sums: tuple[Sums, ...] | None
    tasks: int
    classes: int

    @classmethod
    def empty(cls, tasks: int, classes: int) -> _Prefixes:
        return cls(None, tasks, classes)

    def plus(self, features: Sequence[Tensor], labels: Tensor) -> _Prefixes:
        chosen = features[: self.tasks]
        before = self.sums or tuple(Sums.empty(one.shape[1], self.classes) for one in chosen)
        return replace(self, sums=tuple(old.plus(one, labels) for old, one in zip(before, chosen, strict=True)))

    def packed(self, sums: Sums) -> PackedSums:
        return replace(sums.packed(), prefixes=tuple(one.packed() for one in self.sums or ()))


def _learned_from(
    see: See, train: Examples, tasks: int, reporter: Reporter, device: torch.device
) -> tuple[Tensor, _Prefixes]:
    """The new task's own features of its images (N, F_t), and sums over the prefixes of the first so many tasks."""
    own, prefixes = [], _Prefixes.empty(tasks, len(train.classes))
    for chosen, seen in _seen(see, train, reporter, device, (0.3, 0.6)):
        own.append(seen.features[-1])
        prefixes = prefixes.plus(seen.features, train.labels[chosen])
    return torch.cat(own), prefixes


def _judged_by(see: See, held_out: Examples, reporter: Reporter, device: torch.device) -> tuple[list[Tensor], Tensor]:
    """Every task's features of the held-out images, (M, F_t) each, and the new task's logits (M, classes)."""
    judged = [seen for _, seen in _seen(see, held_out, reporter, device, (0.6, 0.7))]
    features = [torch.cat(parts) for parts in zip(*(seen.features for seen in judged), strict=True)]
    return features, torch.cat([seen.heads[-1] for seen in judged])


def _solved(recogniser: Recogniser, sums: Sequence[PackedSums]) -> Recogniser:
    """Weights and detectors anew, from the sums of all tasks in order."""
    readings = list(recogniser.readings)
    # Sums from before there were detectors lack the negatives that a detector needs; their tasks have none.
    for number in range(len(readings) - 1):
        pieces = [later.prefixes[number] for later in sums[number:] if len(later.prefixes) > number]
        if len(pieces) == len(readings) - number and len(sums) == len(readings):
            readings[number] = replace(readings[number], detector=solve(pieces))
    return replace(recogniser, weights=solve(sums), readings=tuple(readings))


@torch.no_grad()
def _common(
    commons: Commons, examples: Examples, reporter: Reporter, device: torch.device, share: tuple[float, float]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of indices, with features of the commons (B, F)."""
    commons = commons.to(device)
    for number, chosen in enumerate(batches(len(examples), EVALUATION_BATCH)):
        yield chosen, commons(pixels(examples.images[chosen].to(device))).cpu()
        _report(reporter, number, len(examples), share)


@torch.no_grad()
def _seen(
    see: See, examples: Examples, reporter: Reporter, device: torch.device, share: tuple[float, float]
) -> Iterator[tuple[Tensor, Seen]]:
    """Batches of indices, and what one pass sees."""
    for number, chosen in enumerate(batches(len(examples), EVALUATION_BATCH)):
        yield chosen, see(pixels(examples.images[chosen].to(device)))
        _report(reporter, number, len(examples), share)


def _report(reporter: Reporter, number: int, count: int, share: tuple[float, float]) -> None:
    done = min(1.0, (number + 1) * EVALUATION_BATCH / count)
    reporter.report("recognising", share[0] + (share[1] - share[0]) * done)
