"""Tests of class scatter and conformal scores of novelty."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from engram.recognition.class_scatter import ClassScatter
from engram.recognition.conformal import CombinedScore, ConformalScores, beside_others
from engram.recognition.ridge import GramStatistics, RidgeSystem

SIZE = 40


def _class(number: int, count: int, seed: int) -> torch.Tensor:
    """Images of a class as features (count, SIZE): noise about a mean of its own."""
    centre = torch.zeros(SIZE)
    centre[number] = 8.0
    return centre + torch.randn(count, SIZE, generator=torch.Generator().manual_seed(1000 * number + seed))


def _task(first: int, count: int) -> GramStatistics:
    features = torch.cat([_class(first, count, 0), _class(first + 1, count, 0)])
    return GramStatistics.empty(SIZE, 2).plus(features, torch.arange(2).repeat_interleave(count))


def _learned(*counts: int) -> tuple[RidgeSystem, ClassScatter]:
    pieces = [_task(2 * number, count).packed() for number, count in enumerate(counts)]
    system = RidgeSystem.of(pieces)
    scatter = ClassScatter.of(pieces, system)
    assert scatter is not None
    return system, scatter


def _scores(system: RidgeSystem, features: torch.Tensor) -> torch.Tensor:
    weights = system.weights().float()
    return features @ weights[:-1] + weights[-1]


@pytest.mark.parametrize("counts", [(60, 60), (60, 60, 60), (400, 60), (400, 400)])
def test_sums_tell_how_images_that_were_not_learned_from_scatter(counts: tuple[int, ...]) -> None:
    """They are standard normal deviates, though the learned images' scores lie much closer to their means."""
    system, scatter = _learned(*counts)
    sizes = [2] * len(counts)
    for task in range(len(counts)):
        fresh = torch.cat([_class(2 * task, 2000, 1), _class(2 * task + 1, 2000, 1)])
        deviates = scatter.unusual(_scores(system, fresh), sizes)[:, task]
        assert float(deviates.mean()) == pytest.approx(0.0, abs=0.25)
        assert float(deviates.std()) == pytest.approx(1.0, abs=0.25)


def test_deviates_are_those_of_the_chi_squared_distribution() -> None:
    squares = torch.tensor([1.6465, 4.5936, 7.3441, 13.3616, 26.1245])  # its quantiles for eight degrees of freedom
    scores = torch.zeros(5, 8)
    scores[:, 0] = squares.sqrt()
    deviates = ClassScatter(torch.eye(8), torch.zeros(1, 8)).unusual(scores, [1])[:, 0]
    np.testing.assert_allclose(deviates, [-2.3263, -0.8416, 0.0, 1.2816, 3.0902], atol=0.05)


def test_what_lies_between_the_classes_is_unusual_to_all_of_them() -> None:
    system, scatter = _learned(300, 300)
    between = _class(9, 300, 2)  # features of no class, so scores of none
    typical = scatter.unusual(_scores(system, _class(0, 300, 3)), [2, 2])[:, 0]
    strange = scatter.unusual(_scores(system, between), [2, 2]).amin(1)
    assert float((strange > torch.quantile(typical, 0.95)).double().mean()) > 0.8


def test_a_single_class_scatters_nowhere() -> None:
    pieces = [GramStatistics.empty(SIZE, 1).plus(_class(0, 100, 0), torch.zeros(100, dtype=torch.int64)).packed()]
    assert ClassScatter.of(pieces, RidgeSystem.of(pieces)) is None


def test_p_values_are_uniform_and_go_on_falling_beyond_what_was_held_out() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = ConformalScores.of(torch.randn(500, generator=generator))
    p_values = scores.p_value(torch.randn(20_000, generator=generator))
    assert float((p_values <= 0.1).double().mean()) == pytest.approx(0.1, abs=0.04)
    far = scores.p_value(torch.tensor([2.0, 4.0, 6.0, 8.0]))
    assert (far.diff() < 0).all()
    assert 0 < float(far[-1]) < 1e-6


@pytest.mark.parametrize("count", [2, 3, 12, 500])
def test_a_value_is_compared_with_the_others_only(count: int) -> None:
    values = 7 + 3 * torch.randn(count, generator=torch.Generator().manual_seed(count))
    expected = []
    for index in range(count):
        others = torch.cat([values[:index], values[index + 1 :]]).double()
        expected.append((float(values[index]) - float(others.mean())) / max(1e-3, float(others.std(unbiased=False))))
    assert beside_others(values).tolist() == pytest.approx(expected, rel=1e-3)


def test_values_that_are_alike_are_not_unusual() -> None:
    assert beside_others(torch.full((9,), 4.0)).tolist() == [0.0] * 9
    assert beside_others(torch.tensor([4.0])).tolist() == [0.0]


@pytest.mark.parametrize("count", [8, 12, 20, 50])
def test_few_held_out_images_do_not_make_known_ones_strangers(count: int) -> None:
    generator = torch.Generator().manual_seed(0)
    p_values = []
    for _ in range(400):
        density, scatter = torch.randn(2, count, generator=generator)
        more = torch.randn(2, 100, generator=generator)
        deviates = ConformalScores.of(density).standardised(more[0])
        p_values.append(CombinedScore.of(density, scatter).p_value(deviates, more[1], torch.ones(100)))
    found = torch.cat(p_values)
    for level in (0.05, 0.1):
        assert float((found <= level).double().mean()) <= level


def test_an_image_is_unusual_by_either_kind_of_evidence() -> None:
    generator = torch.Generator().manual_seed(0)
    density, scatter = torch.randn(2, 400, generator=generator)
    typical = CombinedScore.of(density, 3 * scatter + 5)

    def p_value(density: float, scatter: float, alone: float = 0.5) -> float:
        given = torch.tensor([[density], [3 * scatter + 5], [alone]])
        return float(typical.p_value(*given))

    assert p_value(0, 0) > 0.5
    assert p_value(-4, -4) > 0.5
    assert p_value(5, -4) < 0.01
    assert p_value(-4, 5) < 0.01
    assert p_value(2.5, 2.5) < p_value(2.5, 0) < 0.1
    assert p_value(0, -4, alone=1e-5) < 0.01, "what is far from all is unusual, whatever its scores"
