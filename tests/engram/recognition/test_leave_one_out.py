"""Tests of closed-form leave-one-out scores against fits that really leave one image out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from engram.recognition.density import Density
from engram.recognition.leave_one_out import left_out_distances, left_out_scores
from engram.recognition.ridge import GramStatistics, PackedGram, RidgeSystem


def drawn(features: int, counts: tuple[int, ...], seed: int = 0) -> tuple[Tensor, Tensor]:
    """Correlated features (N, F) around a mean for each class, and labels (N,)."""
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn(features, features, generator=generator) * torch.logspace(0, -1.5, features)
    parts = [
        torch.randn(count, features, generator=generator) @ mixed + torch.randn(features, generator=generator) * 2
        for count in counts
    ]
    return torch.cat(parts), torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))


def summed(features: Tensor, labels: Tensor, classes: int) -> GramStatistics:
    return GramStatistics.empty(features.shape[1], classes).plus(features, labels)


def without(index: int, features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    kept = torch.arange(len(labels)) != index
    return features[kept], labels[kept]


@pytest.mark.parametrize(
    ("features", "counts", "tolerance"),
    [
        (40, (12, 8), 1e-4),  # fewer images than principal directions: exact
        (160, (30, 30), 1e-4),
        (160, (80, 70), 1e-3),  # more: directions turn, which is worked out for so many
        (160, (300, 200), 0.06),  # and taken over to the others
        (160, (400, 5), 0.06),
    ],
)
def test_distances_are_those_of_a_density_without_the_image(
    features: int, counts: tuple[int, ...], tolerance: float
) -> None:
    given, labels = drawn(features, counts)
    sums = summed(given, labels, len(counts))
    density, spectrum = Density.unscaled(sums)
    found = left_out_distances(density, spectrum, sums.counts, given, labels)
    for index in torch.linspace(0, len(labels) - 1, 12).long().tolist():
        others, _ = Density.unscaled(summed(*without(index, given, labels), len(counts)))
        expected = float(others.distance(given[index : index + 1]))
        assert float(found[index]) == pytest.approx(expected, rel=tolerance)
    assert float(density.distance(given).median()) < 0.9 * float(found.median())  # which is why one is left out


def test_an_image_that_is_alone_in_its_class_is_compared_with_the_other_classes() -> None:
    given, labels = drawn(30, (10, 1))
    sums = summed(given, labels, 2)
    density, spectrum = Density.unscaled(sums)
    found = left_out_distances(density, spectrum, sums.counts, given, labels)
    others, _ = Density.unscaled(summed(given[:10], labels[:10], 1))
    assert float(found[10]) == pytest.approx(float(others.distance(given[10:])), rel=0.2)
    assert bool(found.isfinite().all())


@pytest.mark.parametrize("counts", [(12, 8), (60, 6), (3, 2), (150, 150)])
def test_scores_are_those_of_a_regression_without_the_image(counts: tuple[int, ...]) -> None:
    other = summed(*drawn(50, (20, 25), seed=1), 2).packed()
    given, labels = drawn(50, counts)

    def system(features: Tensor, own: Tensor) -> tuple[RidgeSystem, PackedGram]:
        piece = summed(features, own, len(counts)).packed()
        return RidgeSystem.of([other, piece], by_class=True), piece

    whole, piece = system(given, labels)
    found = left_out_scores(whole, piece, 1, given, labels, first=2)
    assert found.shape == (len(labels), 2 + len(counts))
    for index in range(0, len(labels), max(1, len(labels) // 10)):
        phi = torch.cat([given[index].double(), torch.ones(1, dtype=torch.float64)])
        expected = phi @ system(*without(index, given, labels))[0].weights()
        torch.testing.assert_close(found[index].double(), expected, atol=0.03, rtol=0.05)
        naive = float((phi @ whole.weights() - expected).abs().max())
        assert float((found[index].double() - expected).abs().max()) < 0.2 * naive + 1e-3


def test_the_only_image_of_a_class_leaves_no_score_behind() -> None:
    given, labels = drawn(20, (15, 1))
    piece = summed(given, labels, 2).packed()
    system = RidgeSystem.of([piece], by_class=True)
    assert float(left_out_scores(system, piece, 0, given, labels, first=0)[15, 1]) == 0.0
