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
) -> Taught:
    """Teach the recogniser the task that `see` sees last.

    Parameters
    ----------
    earlier
        The sums of the tasks the recogniser knows; none of what is given is changed.
    gathered
        What `gather` gave for the same images, if it was called already.

    Raises
    ------
    Cancelled
    """
    classes = len(train.classes)
    commons = commons.fitted(train.images).eval()
    gathered = gathered or gather(commons, train, held_out, reporter, device)
    sums, common = gathered.sums, gathered.common
    own = torch.cat([seen.features[-1] for seen in _seen(see, train, reporter, device, (0.3, 0.6))])
    judged = list(_seen(see, held_out, reporter, device, (0.6, 0.7)))
    features = [torch.cat(parts) for parts in zip(*(seen.features for seen in judged), strict=True)]
    head = torch.cat([seen.heads[-1] for seen in judged])  # (M, classes)
    density = Density.fit(own, train.labels, classes, features[-1])
    reading = Reading(task, classes, density, fitted_temperature(head, held_out.labels))
    weights = solve((*earlier, sums.packed()))
    recogniser = replace(recogniser, weights=weights, readings=(*recogniser.readings, reading))
    reporter.report("recognising", 0.85)
    scores, distances = recogniser.class_scores(common), recogniser.distances(features)
    recogniser = recogniser.calibrated(scores, distances)
    right = recogniser.log_probabilities(scores, distances).argmax(1) == len(recogniser.readings) - 1
    hit = head.argmax(1) == held_out.labels
    # What was held out has served its purpose, and exact sums only gain by it.
    packed = sums.plus(common, held_out.labels).packed()
    recogniser = replace(recogniser, weights=solve((*earlier, packed)))
    reporter.report("recognising", 1.0)
    shares = [float(share.double().mean()) for share in (hit, right, right & hit)]
    return Taught(commons, recogniser, packed, *shares)


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
) -> Iterator[Seen]:
    """What one pass sees, batch by batch."""
    for number, chosen in enumerate(batches(len(examples), EVALUATION_BATCH)):
        yield see(pixels(examples.images[chosen].to(device)))
        _report(reporter, number, len(examples), share)


def _report(reporter: Reporter, number: int, count: int, share: tuple[float, float]) -> None:
    done = min(1.0, (number + 1) * EVALUATION_BATCH / count)
    reporter.report("recognising", share[0] + (share[1] - share[0]) * done)
