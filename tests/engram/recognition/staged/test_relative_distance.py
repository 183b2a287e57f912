"""Tests of relative distances: ratios of densities, standardised whatever other classes there are."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from engram.recognition.staged.joined.relative_distance import BETWEEN, RelativeDistance
from engram.recognition.staged.score_space import squared


def class_means(classes: int, size: int, seed: int = 0) -> Tensor:
    return 2.5 * torch.randn(classes, size, generator=torch.Generator().manual_seed(seed))


def drawn(mean: Tensor, count: int, seed: int = 1) -> Tensor:
    return mean + torch.randn(count, len(mean), generator=torch.Generator().manual_seed(seed))


def log_density(points: Tensor, mean: Tensor, covariance: Tensor) -> Tensor:
    """Of a Gaussian, but for a constant."""
    apart = points - mean
    found: Tensor = -0.5 * (torch.linalg.solve(covariance, apart.T).T * apart).sum(1)
    return found


def test_a_deviate_is_the_ratio_of_a_background_and_a_class() -> None:
    means, points = class_means(4, 3).double(), drawn(torch.zeros(3), 20).double()
    found = RelativeDistance.of([(1.0, means)]).deviates(points.float(), squared(points, means).float())
    unit, apart = torch.eye(3, dtype=torch.float64), means - means.mean(0)
    wide = unit + BETWEEN * apart.T @ apart / 4
    for number, mean in enumerate(means):
        ratio = log_density(points, means.mean(0), wide) - log_density(points, mean, unit)
        kept = torch.stack([ratio, torch.ones_like(ratio)], 1)
        line = torch.linalg.lstsq(kept, found[:, number].double()[:, None]).solution[:, 0]
        assert float(line[0]) > 0
        assert (kept @ line).allclose(found[:, number].double(), atol=1e-3)  # but for where it begins, and its scale


@pytest.mark.parametrize("sizes", [(2, 2), (2, 2, 2, 2), (3, 5, 2, 2, 2)])
def test_a_classs_own_images_have_the_same_deviates_whatever_other_classes_there_are(sizes: tuple[int, ...]) -> None:
    means = class_means(sum(sizes), sum(sizes) - 1)
    relative = RelativeDistance.of([(1.0, means)])
    for number, mean in enumerate(means):
        points = drawn(mean, 4000)
        own = relative.deviates(points, squared(points, means))[:, number]
        assert float(own.mean()) == pytest.approx(0, abs=0.08)
        assert float(own.std()) == pytest.approx(1, abs=0.08)


def test_of_several_commons_the_ratios_are_averaged_by_their_weights() -> None:
    parts, points = [class_means(4, 3, 2), class_means(4, 2, 3)], [drawn(torch.zeros(3), 9), drawn(torch.ones(2), 9)]
    weights = (0.75, 0.25)
    sides = [w**0.5 * own for w, own in zip(weights, points, strict=True)]
    means = torch.cat([w**0.5 * own for w, own in zip(weights, parts, strict=True)], 1)
    joined = RelativeDistance.of(list(zip(weights, parts, strict=True)))
    both = torch.cat(sides, 1)
    found = joined.deviates(both, squared(both, means)) * joined.scales
    singles = [RelativeDistance.of([(1.0, own)]) for own in parts]
    each = [
        weight * one.scales * one.deviates(given, squared(given, own))
        for weight, one, given, own in zip(weights, singles, points, parts, strict=True)
    ]
    assert found.allclose(each[0] + each[1], atol=1e-4)


def test_what_lies_between_the_classes_is_told_though_it_is_as_near_as_known_images() -> None:
    """Two pairs of classes lie apart in one direction each; a stranger is as near to a class, but on the inner side."""
    means = torch.tensor([[4.0, 0.0], [-4.0, 0.0], [0.0, 4.0], [0.0, -4.0]])
    relative = RelativeDistance.of([(1.0, means)])
    outer, inner = torch.tensor([[6.0, 0.0]]), torch.tensor([[2.0, 0.0]])
    distances = [squared(points, means) for points in (outer, inner)]
    assert float(distances[0].amin()) == float(distances[1].amin())
    found = [
        float(relative.unusual(points, apart, (2, 2))[0, 0])
        for points, apart in zip((outer, inner), distances, strict=True)
    ]
    assert found[1] > found[0] + 1


@pytest.mark.parametrize("weights", [(1.0,), (0.75, 0.25)])
def test_what_is_far_from_all_is_told_by_its_distance(weights: tuple[float, ...]) -> None:
    parts = [class_means(4, 3, number) for number in range(len(weights))]
    means = torch.cat([w**0.5 * own for w, own in zip(weights, parts, strict=True)], 1)
    noise = torch.cat([w**0.5 * drawn(torch.zeros(3), 3000, n) for n, w in enumerate(weights)], 1)
    relative = RelativeDistance.of(list(zip(weights, parts, strict=True)))
    known, far = means[0] + noise, means.mean(0) + 9 * noise
    nearest = [squared(points, means).amin(1, keepdim=True) for points in (known, far)]
    usual = relative.told(torch.zeros(3000, 1), nearest[0])
    assert float((usual > 0).double().mean()) == pytest.approx(0.15, abs=0.06)  # beyond one deviation
    assert float(relative.told(torch.zeros(3000, 1), nearest[1]).quantile(0.1)) > float(usual.quantile(0.99))


def test_a_task_has_the_least_of_its_classes() -> None:
    means, points = class_means(5, 4), drawn(torch.zeros(4), 6)
    relative, distances = RelativeDistance.of([(1.0, means)]), squared(points, means)
    each = relative.deviates(points, distances)
    least = [torch.stack([one[:, :2].amin(1), one[:, 2:].amin(1)], 1) for one in (each, distances)]
    assert relative.unusual(points, distances, (2, 3)).equal(relative.told(*least))
