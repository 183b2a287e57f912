"""Tests of stage one: contenders hold the probability, score spaces are discriminants."""

from __future__ import annotations

import pytest
import torch

from engram.nn.commons.ridges import OF_FILTERS
from engram.recognition.staged.agreement import weights
from engram.recognition.staged.exact_sums import ExactSums
from engram.recognition.staged.per_task import per_task
from engram.recognition.staged.score_space import RidgeSolution, SolvedTotals
from engram.recognition.staged.stage_one import RIVAL, FirstAnswer, temperature_of
from engram.recognition.staged.totals import Totals

STEP = 2.0**-9


def first(tasks: list[list[float]]) -> FirstAnswer:
    log_tasks = torch.tensor(tasks).log()
    return FirstAnswer(log_tasks, log_tasks, torch.zeros_like(log_tasks))


@pytest.mark.parametrize(
    ("probabilities", "most", "expected"),
    [
        ([0.995, 0.003, 0.002], 2, [True, False, False]),
        ([0.55, 0.445, 0.005], 2, [True, True, False]),
        ([0.6, 0.395, 0.005], 2, [True, False, False]),
        ([0.4, 0.3, 0.3], 64, [True, True, True]),
        ([0.4, 0.3, 0.3], 2, [True, True, False]),
        ([0.3, 0.4, 0.3], 1, [False, True, False]),
        ([0.4, 0.3, 0.3], 3, [True, True, True]),
        ([0.995, 0.003, 0.002], None, [True, True, True]),
    ],
)
def test_contenders_are_no_more_than_it_takes(
    probabilities: list[float], most: int | None, expected: list[bool]
) -> None:
    assert RIVAL == 0.7
    assert first([probabilities]).contenders(most).tolist() == [expected]


def test_each_image_has_contenders_of_its_own() -> None:
    found = first([[0.999, 0.001], [0.5, 0.5], [0.001, 0.999]]).contenders(2)
    assert found.tolist() == [[True, False], [True, True], [False, True]]


def test_the_temperature_is_the_mean_of_logs_by_images() -> None:
    assert temperature_of([(0.0, 1.0), (-3.0, 2.0)]) == pytest.approx(float(torch.tensor(-2.0).exp()))
    assert temperature_of([]) == 1.0


@pytest.mark.parametrize(
    ("apart", "expected"), [((4.0, 4.0), (5 / 9, 5 / 9)), ((5.0, 2.0), (1.0, 0.0)), ((2.0, 5.0), (5 / 9, 5 / 9))]
)
def test_evidence_that_adds_nothing_counts_for_nothing(
    apart: tuple[float, float], expected: tuple[float, float]
) -> None:
    assert weights(*apart) == pytest.approx(expected)


def test_two_correlated_scores_are_weighed_as_the_best_discriminant_weighs_them() -> None:
    first, second, correlation = 3.0, 2.5, 0.6
    covariance = torch.tensor([[1.0, correlation], [correlation, 1.0]])
    best = torch.linalg.solve(covariance, torch.tensor([first, second]))
    expected = best / torch.tensor([first, second])  # of log-odds, whose deviations are how far apart they are
    assert weights(first, second, correlation) == pytest.approx(expected.tolist(), rel=1e-5)


@pytest.mark.parametrize("classes", [1, 2, 3])
def test_a_score_space_is_the_discriminant_of_ridge_scores(classes: int) -> None:
    """Beside many images no leverage is left, and directions whiten the scatter of plain ridge scores."""
    generator = torch.Generator().manual_seed(classes)
    labels = torch.arange(900) % classes
    centres = torch.rand(classes, 8, generator=generator) * 4
    features = (centres[labels] + 0.3 * torch.randn(900, 8, generator=generator)).clamp(0, 7.9)
    features = (features / STEP).round() * STEP
    totals = Totals.empty(8, STEP).plus("a", ExactSums.empty(8, classes, STEP).plus(features, labels))
    space = SolvedTotals.of(totals).space
    assert space.weights.shape[1] == 0 if classes == 1 else 0 < space.weights.shape[1] <= classes
    if classes == 1:
        return
    phi = torch.cat([features, torch.ones(900, 1)], 1).double()
    own = [phi[labels == label] for label in range(classes)]
    means = torch.stack([rows.mean(0) for rows in own], 1)
    gram = means @ means.T
    for rows in own:
        gram += torch.cov(rows.T, correction=0)
    ridge = min(OF_FILTERS.values, key=lambda one: RidgeSolution.of(totals.matrix(), totals.means(), 900, one).error)
    gram += ridge / 900 * gram.diagonal()[:-1].mean() * torch.eye(9, dtype=torch.float64)
    solved = torch.linalg.solve(gram, means)
    scores = [rows @ solved for rows in own]
    within = torch.stack([torch.cov(rows.T, correction=0) for rows in scores]).mean(0)
    apart = (phi @ solved)[:, None] - torch.stack([rows.mean(0) for rows in scores])[None]
    plain = (apart @ torch.linalg.pinv(within, rtol=1e-3) * apart).sum(2)
    found = space.squared(features)
    assert found.argmin(1).equal(plain.argmin(1))
    assert found.double().allclose(plain, rtol=0.1, atol=1.0)


@pytest.mark.parametrize("images", [60, 600])
def test_the_error_that_is_told_from_sums_is_that_of_leaving_images_out(images: int) -> None:
    """Generalised cross-validation against fits without each image, of classes with equally many images."""
    generator = torch.Generator().manual_seed(images)
    labels = torch.arange(images) % 2
    features = (2 + labels[:, None] * 0.5 + torch.randn(images, 12, generator=generator)).clamp(0, 7.9)
    features = (features / STEP).round() * STEP
    totals = Totals.empty(12, STEP).plus("a", ExactSums.empty(12, 2, STEP).plus(features, labels))
    second, means = totals.matrix(), totals.means()
    phi = torch.cat([features, torch.ones(images, 1)], 1).double()
    hot = torch.nn.functional.one_hot(labels, 2).double()
    for ridge in OF_FILTERS.values:
        held = ridge / images * float(second.diagonal()[:-1].mean()) * torch.eye(13, dtype=torch.float64)
        missed = 0.0
        for number in range(images):
            rest = torch.arange(images) != number
            gram = 2 / images * phi[rest].T @ phi[rest] + held
            weights = torch.linalg.solve(gram, 2 / images * phi[rest].T @ hot[rest])
            missed += float((hot[number] - phi[number] @ weights).square().sum()) * 2 / images
        found = RidgeSolution.of(second, means, images, ridge)
        assert found.error == pytest.approx(missed, rel=0.03)


@pytest.mark.parametrize("shade", [0.0, 1.0, 3.0])
def test_features_that_hardly_vary_can_be_solved(shade: float) -> None:
    """Second moments are rounded to whole squared steps, which can make them indefinite where there is little else."""
    generator = torch.Generator().manual_seed(0)
    totals = Totals.empty(200, STEP)
    for task in range(3):
        features = torch.randint(0, 2, (40, 200), generator=generator) * shade * STEP
        totals = totals.plus(f"task {task}", ExactSums.empty(200, 2, STEP).plus(features, torch.arange(40) % 2))
    space = SolvedTotals.of(totals).space
    assert bool(space.squared(shade * torch.ones(1, 200)).isfinite().all())


@pytest.mark.parametrize("sizes", [(2,), (2, 2, 2), (1, 1), (3, 1, 3, 5), (17, 2, 17, 40, 2)])
@pytest.mark.parametrize("images", [1, 7, 33])
def test_classes_are_reduced_as_those_of_each_task_by_themselves(sizes: tuple[int, ...], images: int) -> None:
    values = 30 * torch.randn(images, sum(sizes), generator=torch.Generator().manual_seed(images))
    for reduce in (torch.logsumexp, torch.amin):
        expected = torch.stack([reduce(part, 1) for part in torch.split(values, list(sizes), 1)], 1)
        assert torch.equal(per_task(values, sizes, reduce), expected)
