"""Adopted tasks: what a network that the user brought answered before there was a model.

Without images of its classes nothing is known of what they look like to the commons. So an image is its own unless a
task that was learned finds it an ordinary one; the probability that follows is no calibrated one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from engram.data.examples import Examples
from engram.errors import ExamplesError
from engram.nn.capacity import TaskInfo
from engram.nn.commons.base import Look
from engram.recognition.predictions import Observation
from engram.recognition.staged.observation import Labels, StagedObservation

EVEN = 0.05
"""The p-value at which an image is as likely a learned task's as the adopted one's: of a task's own images one in
twenty is less ordinary."""

LEAST = 1e-6
"""Of a share that is not to be nothing."""


def alone(info: TaskInfo, look: Look) -> Observation:
    """Images shown to the adopted task alone, or where there is no other."""
    logits = answers_of(look)
    count = len(logits)
    return Observation(
        (info,),
        (logits,),
        torch.ones(1),
        torch.zeros(count, 1),
        torch.full((count, 1), torch.nan),
        levels=(None,),
        vouched=(False,),
        ran=(info.name,),
        calibrated=False,
    )


def beside(
    info: TaskInfo,
    look: Look,
    others: StagedObservation,
    labels: Labels,
    ask: Callable[[Tensor, str], Observation],
) -> StagedObservation:
    """What the adopted task and those that were learned make of images together.

    Parameters
    ----------
    labels
        Of all tasks, the adopted one first.
    ask
        Shows images to one task.
    """
    ordinary = others.p_values.nan_to_num(0.0).amax(1, keepdim=True)  # (B, 1)
    share = (ordinary / (ordinary + EVEN)).clamp(LEAST, 1 - LEAST)
    own = torch.softmax(answers_of(look), 1)  # (B, outputs)
    first = torch.cat([(1 - share) * own, share * others.decided], 1)
    told = first if others.told is others.decided else torch.cat([(1 - share) * own, share * others.told], 1)
    blank = torch.full_like(share, torch.nan)
    return replace(
        others,
        tasks=(info, *others.tasks),
        temperatures=torch.cat([torch.ones(1), others.temperatures]),
        log_tasks=torch.cat([(1 - share).log(), share.log() + others.log_tasks], 1),
        p_values=torch.cat([blank, others.p_values], 1),
        levels=(None, *(others.levels or ())),
        vouched=(False, *(others.vouched or ())),
        decided=first,
        told=told,
        contending=torch.cat([torch.ones_like(share, dtype=torch.bool), others.contending], 1),
        heads_of=(True, *others.heads_of),
        labels=labels,
        ask=ask,
        calibrated=False,
    )


def answers_of(look: Look) -> Tensor:
    """(B, outputs): what the network itself answered."""
    assert look.logits is not None, "a network that was adopted has a classifier"
    return look.logits


def in_order(examples: Examples, classes: Sequence[str]) -> Examples:
    """Examples of a network's classes, in the order of its outputs.

    Raises
    ------
    ExamplesError
        where they are of other classes, or lack some.
    """
    if set(examples.classes) != set(classes):
        missing = sorted(set(classes) - set(examples.classes))
        strange = sorted(set(examples.classes) - set(classes))
        what = f"lack {missing[0]!r}" if missing else f"have {strange[0]!r}, which it does not know"
        raise ExamplesError(f"images for an adopted network are of all its classes and no others; these {what}")
    order = torch.tensor([list(classes).index(name) for name in examples.classes])
    held_out = None if examples.held_out is None else in_order(examples.held_out, classes)
    return Examples(examples.images, order[examples.labels], tuple(classes), held_out)
