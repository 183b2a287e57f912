"""Tests of stacked tasks: what is computed for all at once is what each profile says by itself."""

from __future__ import annotations

from dataclasses import replace

import numpy
import pytest
import torch
from torch import Tensor

from engram.nn.capacity import TaskInfo
from engram.recognition.conformal import CombinedScore, ConformalScores
from engram.recognition.density import Density
from engram.recognition.heads.head_balance import HeadBalance, within_task
from engram.recognition.staged.contest import TaskAnswer, joint, opened
from engram.recognition.staged.profile import StagedProfile
from engram.recognition.staged.stacked_tasks import StackedTasks
from engram.recognition.staged.stage_one import FirstAnswer

CLASSES = (2, 1, 3)
INFOS = tuple(TaskInfo(f"task {n}", tuple(f"{n}-{c}" for c in range(count))) for n, count in enumerate(CLASSES))


def profile(number: int, count: int, images: int) -> StagedProfile:
    generator = torch.Generator().manual_seed(number)
    features = torch.rand(images, 6, generator=generator) + number
    density = Density.fit(features, torch.arange(images) % count, count, features)
    unusual = torch.randn(images, generator=generator)
    combined = CombinedScore.of(density.standardised(density.distance(features)), unusual) if number != 1 else None
    balance = HeadBalance(torch.tensor([0.3, -0.3, 0.1]), torch.tensor([0.7, 0.2, 0.1]).log()) if number == 2 else None
    return StagedProfile(
        f"task {number}", density, torch.tensor(0.5 + number), images, 0.0, 1.0, combined, None, balance
    )


PROFILES = tuple(
    profile(number, count, images) for number, (count, images) in enumerate(zip(CLASSES, (40, 15, 64), strict=True))
)


def features(seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 4 * torch.rand(12, 6, generator=generator) - 0.5


@pytest.mark.parametrize("seed", range(6))
def test_p_values_are_those_of_each_profile(seed: int) -> None:
    stacked, seen = StackedTasks.of(INFOS, PROFILES), features(seed)
    unusual = 3 * torch.randn(12, 3, generator=torch.Generator().manual_seed(seed))
    tasks, rows = numpy.ones((3, 12)).nonzero()
    found = torch.from_numpy(stacked.p_values(seen, unusual, rows, tasks)).view(3, 12)
    for number, one in enumerate(PROFILES):
        expected = one.p_values(seen, unusual[:, number])
        assert found[number].allclose(expected, rtol=1e-4, atol=1e-9)


def related(one: StagedProfile) -> StagedProfile:
    """The same, told by distances relative to all classes."""
    seen = torch.randn(one.scored, generator=torch.Generator().manual_seed(one.scored))
    return replace(one, combined=None, relative=ConformalScores.of(seen))


@pytest.mark.parametrize("alone", [False, True])
def test_p_values_of_relative_distances_are_those_of_each_profile(alone: bool) -> None:
    """Also where the density of the first task stands alone, which had a single class."""
    profiles = (
        (replace(PROFILES[0], combined=None), *map(related, PROFILES[1:])) if alone else (*map(related, PROFILES),)
    )
    stacked, seen = StackedTasks.of(INFOS, profiles), features(3)
    unusual = 3 * torch.randn(12, 3, generator=torch.Generator().manual_seed(3))
    tasks, rows = numpy.ones((3, 12)).nonzero()
    found = torch.from_numpy(stacked.p_values(seen, unusual, rows, tasks)).view(3, 12)
    for number, one in enumerate(profiles):
        expected = one.p_values(seen, unusual[:, number])
        assert found[number].allclose(expected, rtol=1e-4, atol=1e-9)
        assert float(expected.max()) <= 1


def test_a_profile_of_relative_distances_is_of_a_format_that_earlier_releases_refuse() -> None:
    one = related(PROFILES[0])
    data = one.dump()
    again = StagedProfile.load(data)
    assert again.dump() == data
    assert again.p_values(features(0), torch.zeros(12)).equal(one.p_values(features(0), torch.zeros(12)))
    assert b'\\"format\\":3' in data
    assert b'\\"format\\":1' in PROFILES[0].dump()


def first_answer(seed: int) -> FirstAnswer:
    generator = torch.Generator().manual_seed(seed)
    log_classes = torch.log_softmax(3 * torch.randn(12, sum(CLASSES), generator=generator), 1)
    log_tasks = torch.stack([part.logsumexp(1) for part in torch.split(log_classes, list(CLASSES), 1)], 1)
    return FirstAnswer(log_classes, log_tasks, torch.randn(12, 3, generator=generator))


@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_a_head_and_stage_one_decide_together_task_by_task(seed: int, balanced: bool) -> None:
    profiles = PROFILES if balanced else tuple(replace(one, balance=None) for one in PROFILES)
    stacked, first = StackedTasks.of(INFOS, profiles), first_answer(seed)
    answers = {
        number: TaskAnswer(
            torch.arange(number, 12, 2), torch.randn(len(range(number, 12, 2)), count), torch.zeros(1, 0)
        )
        for number, count in enumerate(CLASSES)
    }
    decided, told = joint(stacked, first, first.log_tasks, answers)
    ridge = torch.split(first.log_classes, list(CLASSES), 1)
    start = 0
    for number, (one, count) in enumerate(zip(profiles, CLASSES, strict=True)):
        expected, said = ridge[number].clone(), ridge[number].clone()
        answer = answers[number]
        decisive, _ = within_task(answer.logits, one.temperature, one.balance)
        blended = torch.log_softmax((decisive + torch.log_softmax(ridge[number][answer.rows], 1)) / 2, 1)
        prior = 0.0 if one.balance is None else one.balance.log_prior
        expected[answer.rows] = first.log_tasks[answer.rows][:, [number]] + blended
        said[answer.rows] = first.log_tasks[answer.rows][:, [number]] + torch.log_softmax(blended + prior, 1)
        assert decided[:, start : start + count].allclose(expected.exp(), atol=1e-6)
        assert told[:, start : start + count].allclose(said.exp(), atol=1e-6)
        start += count
    assert decided.sum(1).allclose(torch.ones(12))
    assert told.sum(1).allclose(torch.ones(12))


def test_an_image_that_its_contenders_decline_is_shown_to_the_nearest_tasks() -> None:
    stacked = StackedTasks.of(INFOS, PROFILES)
    own = 2.5 + torch.zeros(1, 6)  # in the middle of the third task's images
    first = FirstAnswer(torch.zeros(1, 6), torch.zeros(1, 3), torch.tensor([[0.0, 9.0, 1.0]]))
    contending = torch.tensor([[True, False, False]])
    chosen, p_values, asked = opened(stacked, own, first, contending)
    assert chosen.tolist() == [[True, False, True]]
    assert asked.tolist() == [[True, True, True]]  # the second task cannot tell, and does not contend
    assert float(p_values[0, 0]) <= stacked.levels[0]
    assert stacked.levels[2] < float(p_values[0, 2])


def test_an_image_that_its_contender_knows_is_shown_to_no_other() -> None:
    stacked = StackedTasks.of(INFOS, PROFILES)
    first = FirstAnswer(torch.zeros(1, 6), torch.zeros(1, 3), torch.tensor([[0.0, 9.0, 1.0]]))
    contending = torch.tensor([[True, False, False]])
    chosen, p_values, asked = opened(stacked, 0.5 + torch.zeros(1, 6), first, contending)
    assert chosen.equal(contending)
    assert asked.equal(contending)
    assert p_values.isnan().tolist() == [[False, True, True]]
