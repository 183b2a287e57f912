"""Calibration of a new task by its own images, beside the first task's and no others'."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from engram.context import LearnContext
from engram.nn.commons import Commons
from engram.nn.commons.outputs import Outputs
from engram.recognition.conformal import CombinedScore, ConformalScores
from engram.recognition.staged.joined.joined_solution import JoinedSolution, Mixture, chosen_mixture, mixtures
from engram.recognition.staged.joined.joined_sums import JoinedSums
from engram.recognition.staged.joined.joined_totals import JoinedTotals
from engram.recognition.staged.joined.output_deviations import OutputDeviations
from engram.recognition.staged.profile import StagedProfile
from engram.recognition.staged.stage_one import StageOne
from engram.recognition.staged.task_evidence import scaled_density, temperature_evidence
from engram.recognition.task_density import noise_features


@dataclass(frozen=True)
class CalibratedTask:
    """What is known of a task beside the first one."""

    profile: StagedProfile
    """Which lacks what only a network can say."""
    mixture: Mixture | None
    """What its images say of how to share the weight among several commons."""
    solved: JoinedSolution
    """Over the first task and this one."""
    ridge: Tensor
    """(n, K): log-densities of the task's own classes by that solution, of the images that are judged."""


def calibrated_by(
    task: str,
    commons: Commons,
    sums: JoinedSums,
    judged: tuple[Tensor, Tensor],
    first: tuple[str, JoinedSums] | None,
    beside: Mixture | None,
    shape: tuple[int, int, int],
    context: LearnContext,
    *,
    novelty: int,
) -> CalibratedTask:
    """Density, conformal scores and temperature of a task.

    They are found in a model of the first task and this one: whatever else was learned in between, they are the same,
    so that it can be taken away without a trace.

    Parameters
    ----------
    judged
        Features (n, F) and labels (n,) of the task's images that are judged, each as if it had not been learned from.
    first
        Name and sums of the first task, where this is another one.
    beside
        What the first task's images say of how to share the weight among several commons.
    shape
        Channels, height and width of images.
    novelty
        Number of the way that strangers are told.

    Raises
    ------
    Cancelled
    """
    features, labels = judged
    own = sums.split(features)
    # Of several commons the first one tells strangers apart: a density over all would take sums of all by all.
    density, distances = scaled_density(own[0], labels, sums.each[0])
    context.reporter.check()
    totals = JoinedTotals.empty(commons.widths, commons.steps)
    totals = (totals if first is None else totals.plus(*first)).plus(task, sums)
    solved = JoinedSolution.of(totals, commons.ridges)
    apart = solved.left_out(totals, task, own, labels)
    mixture = apart.evidence() if len(sums.each) > 1 else None
    known = [(one, 1.0) for one in (beside, mixture) if one is not None]
    weights = mixtures(len(sums.each))[chosen_mixture(len(sums.each), known)]
    outputs = commons.outputs() if novelty > 2 else None
    deviations = None if outputs is None else OutputDeviations.of(totals, outputs)
    space = solved.space(weights, relative=novelty > 1, outputs=deviations)
    left_out = apart.mixed(weights)
    log_temperature, evidence = temperature_evidence(left_out)
    profile = StagedProfile(task, density, torch.tensor(1.0), len(distances), log_temperature, evidence)
    if space.means.shape[1]:  # where one class is all, there is nothing beside the density
        deviating = _deviating(deviations, totals, outputs, judged)
        scattered = space.unusual(left_out.points, left_out.distances, totals.sizes, deviating)[:, -1]
        profile = _told(profile, distances, scattered, relative=novelty > 1)
    noise = noise_features(commons, context, *shape)
    unusual = StageOne(space, tuple(totals.sizes), 1.0, lambda: outputs)(noise).unusual[:, -1]
    ridge = -0.5 * math.exp(log_temperature) * left_out.distances[:, -totals.sizes[-1] :]
    return CalibratedTask(profile.tried(profile.p_values(noise, unusual)), mixture, solved, ridge)


def _deviating(
    deviations: OutputDeviations | None, totals: JoinedTotals, outputs: Outputs | None, judged: tuple[Tensor, Tensor]
) -> Tensor | None:
    """(n,): what is unusual in the network's own outputs for the images that are judged; None where there are none."""
    return None if deviations is None or outputs is None else deviations.left_out(totals, outputs, *judged)


def _told(profile: StagedProfile, distances: Tensor, scattered: Tensor, *, relative: bool) -> StagedProfile:
    """The profile with what tells strangers beside its density, from its images' distances (n,) and scores (n,)."""
    if relative:
        return replace(profile, relative=ConformalScores.of(scattered))
    return replace(profile, combined=CombinedScore.of(profile.density.standardised(distances), scattered))
