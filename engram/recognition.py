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
    """A recogniser that knows one task more, the task's sums, and how it fared on the held-out images.

    `recognised` is the share of them that is given to the task among all tasks so far, `answered` the share that is
    given to the task and to the right class.
    """

    recogniser: Recogniser
    sums: PackedSums
    recognised: float
    answered: float


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
) -> Taught:
    """Teach the recogniser the task that `see` sees last.

    Parameters
    ----------
    earlier
        The sums of the tasks the recogniser knows; none of what is given is changed.

    Raises
    ------
    Cancelled
    """
    classes = len(train.classes)
    own, sums = [], Sums.empty(commons.features, classes)
    for chosen, common, seen in _observed(commons, see, train, reporter, device, (0.0, 0.6)):
        sums = sums.plus(common, train.labels[chosen])
        own.append(seen.features[-1])
    judged = list(_observed(commons, see, held_out, reporter, device, (0.6, 0.7)))
    common = torch.cat([part for _, part, _ in judged])  # (M, F)
    features = [torch.cat(parts) for parts in zip(*(seen.features for _, _, seen in judged), strict=True)]
    head = torch.cat([seen.heads[-1] for _, _, seen in judged])  # (M, classes)
    density = Density.fit(torch.cat(own), train.labels, classes, features[-1])
    reading = Reading(task, classes, density, fitted_temperature(head, held_out.labels))
    weights = solve((*earlier, sums.packed()))
    recogniser = replace(recogniser, weights=weights, readings=(*recogniser.readings, reading))
    reporter.report("recognising", 0.85)
    scores, distances = recogniser.class_scores(common), recogniser.distances(features)
    recogniser = recogniser.calibrated(scores, distances)
    right = recogniser.log_probabilities(scores, distances).argmax(1) == len(recogniser.readings) - 1
    answered = right & (head.argmax(1) == held_out.labels)
    # What was held out has served its purpose, and exact sums only gain by it.
    packed = sums.plus(common, held_out.labels).packed()
    recogniser = replace(recogniser, weights=solve((*earlier, packed)))
    reporter.report("recognising", 1.0)
    return Taught(recogniser, packed, float(right.double().mean()), float(answered.double().mean()))


@torch.no_grad()
def _observed(
    commons: Commons,
    see: See,
    examples: Examples,
    reporter: Reporter,
    device: torch.device,
    share: tuple[float, float],
) -> Iterator[tuple[Tensor, Tensor, Seen]]:
    """Batches of indices, with features of the commons (B, F), and what one pass sees."""
    commons = commons.to(device)
    for number, chosen in enumerate(batches(len(examples), EVALUATION_BATCH)):
        images = pixels(examples.images[chosen].to(device))
        yield chosen, commons(images).cpu(), see(images)
        done = min(1.0, (number + 1) * EVALUATION_BATCH / len(examples))
        reporter.report("recognising", share[0] + (share[1] - share[0]) * done)
