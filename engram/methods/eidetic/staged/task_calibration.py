"""Calibration of a new task by its own images, beside the first task's and no others'."""

from __future__ import annotations

import torch
from torch import Tensor

from engram.context import LearnContext
from engram.nn.commons import Commons
from engram.recognition.staged.exact_sums import ExactSums
from engram.recognition.staged.integers import step_of
from engram.recognition.staged.profile import StagedProfile
from engram.recognition.staged.score_space import SolvedTotals
from engram.recognition.staged.task_evidence import LeftOutScores, combined_score, scaled_density, temperature_evidence
from engram.recognition.staged.totals import Totals
from engram.recognition.task_density import noise_features


def calibrated_by(
    task: str,
    commons: Commons,
    sums: ExactSums,
    judged: tuple[Tensor, Tensor],
    first: tuple[str, ExactSums] | None,
    shape: tuple[int, int, int],
    context: LearnContext,
) -> tuple[StagedProfile, SolvedTotals]:
    """Density, conformal scores and temperature of a task, in a profile that lacks what only a network can say.

    They are found in a model of the first task and this one: whatever else was learned in between, they are the same,
    so that it can be taken away without a trace. That model's regression is the second part of what is returned.

    Parameters
    ----------
    judged
        Features (n, F) and labels (n,) of the task's images that are judged, each as if it had not been learned from.
    first
        Name and sums of the first task, where this is another one.
    shape
        Channels, height and width of images.

    Raises
    ------
    Cancelled
    """
    features, labels = judged
    density, distances = scaled_density(features, labels, sums)
    context.reporter.check()
    totals = Totals.empty(commons.features, step_of(commons))
    totals = (totals if first is None else totals.plus(*first)).plus(task, sums)
    solved = SolvedTotals.of(totals)
    space, sizes, number = solved.space, tuple(totals.sizes), len(totals.sizes) - 1
    left_out = LeftOutScores.of(totals, solved, task, features, labels)
    log_temperature, evidence = temperature_evidence(left_out)
    combined = combined_score(density, distances, left_out, space, sizes, number)
    profile = StagedProfile(task, density, torch.tensor(1.0), len(distances), log_temperature, evidence, combined)
    noise = noise_features(commons, context, *shape)
    unusual = space.unusual(space.squared(noise), sizes)[:, number]
    return profile.tried(profile.p_values(noise, unusual)), solved
