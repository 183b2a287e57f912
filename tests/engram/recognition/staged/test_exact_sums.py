"""Tests of exact sums and totals: equal bytes in any order, and what is added can be taken away."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from torch import Tensor

from engram.recognition.staged.exact_sums import BLOCK, FEW_CLASSES, ExactSums
from engram.recognition.staged.totals import Totals

STEP = 2.0**-9
FEATURES = 5


def drawn(seed: int, count: int, classes: int = 2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    steps = torch.randint(0, 4096, (count, FEATURES), generator=generator)
    labels = torch.cat([torch.arange(classes), torch.randint(0, classes, (count - classes,), generator=generator)])
    return steps * STEP, labels


def summed(seed: int, count: int, classes: int = 2) -> ExactSums:
    return ExactSums.empty(FEATURES, classes, STEP).plus(*drawn(seed, count, classes))


@pytest.mark.parametrize("seed", range(5))
def test_sums_are_the_same_bytes_in_any_order_and_any_parts(seed: int) -> None:
    features, labels = drawn(seed, 500)
    at_once = ExactSums.empty(FEATURES, 2, STEP).plus(features, labels).dump({"task": "a"})
    order = torch.randperm(500, generator=torch.Generator().manual_seed(seed + 100))
    parts = ExactSums.empty(FEATURES, 2, STEP)
    for some in torch.split(order, 37):
        parts = parts.plus(features[some], labels[some])
    assert parts.dump({"task": "a"}) == at_once


def test_sums_are_those_of_whole_numbers_of_any_length() -> None:
    features, labels = drawn(3, 200)
    sums = summed(3, 200)
    steps = [[int(value / STEP) for value in row] for row in features.tolist()]
    for i in range(FEATURES):
        for j in range(FEATURES):
            assert int(sums.gram[i, j]) == sum(row[i] * row[j] for row in steps)
        for label in (0, 1):
            assert int(sums.moments[i, label]) == sum(
                row[i] for row, own in zip(steps, labels.tolist(), strict=True) if own == label
            )


@pytest.mark.parametrize("size", [1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 7])
def test_sums_over_many_features_are_the_whole_product(size: int) -> None:
    steps = torch.randint(0, 4096, (30, size), generator=torch.Generator().manual_seed(size))
    sums = ExactSums.empty(size, 1, STEP).plus((steps * STEP).float(), torch.zeros(30, dtype=torch.int64))
    assert torch.equal(sums.gram.to(torch.int64), steps.T @ steps)


@pytest.mark.parametrize(("largest", "classes"), [(4095, 3), (4095, FEW_CLASSES + 1), (4096, 3)])
def test_sums_over_classes_are_those_of_whole_numbers_however_many(largest: int, classes: int) -> None:
    generator = torch.Generator().manual_seed(classes)
    steps = torch.randint(largest - 1, largest + 1, (9000, 3), generator=generator)  # more than float32 adds up exactly
    labels = torch.randint(0, classes - 1, (9000,), generator=generator)  # the last class has none
    labels[:5000] = 0
    sums = ExactSums.empty(3, classes, STEP).plus((steps * STEP).float(), labels)
    assert torch.equal(
        sums.moments.to(torch.int64), torch.stack([steps[labels == n].sum(0) for n in range(classes)], 1)
    )
    assert torch.equal(sums.plus(torch.zeros(0, 3), labels[:0]).moments, sums.moments)


def test_sums_come_back_from_their_bytes() -> None:
    sums = summed(1, 300, 3)
    found = ExactSums.load(sums.dump({"task": "a"}))
    assert all(a.equal(b) for a, b in zip(found.tensors(), sums.tensors(), strict=True))
    assert found.step == STEP


def test_packed_sums_are_those_of_features_and_a_constant() -> None:
    features, labels = drawn(2, 50)
    packed = summed(2, 50).packed()
    phi = torch.cat([features, torch.ones(50, 1)], 1).double()
    assert packed.gram().allclose(phi.T @ phi)
    assert packed.moments[:, 1].allclose(phi[labels == 1].sum(0))


@pytest.mark.parametrize("gone", [0, 1, 2])
@pytest.mark.parametrize("classes", [1, 2, 5])
def test_a_task_taken_away_leaves_no_trace(gone: int, classes: int) -> None:
    parts = [(f"task {n}", summed(n, 100 + 31 * n, classes)) for n in range(3)]
    totals, without = Totals.empty(FEATURES, STEP), Totals.empty(FEATURES, STEP)
    for number, part in enumerate(parts):
        totals = totals.plus(*part)
        without = without if number == gone else without.plus(*part)
    assert totals.minus(*parts[gone]).dump() == without.dump()
    assert Totals.load(totals.dump()).dump() == totals.dump()


def test_totals_are_the_classes_second_moments_to_the_last_rounding() -> None:
    features, labels = drawn(9, 60, 3)
    found = Totals.empty(FEATURES, STEP).plus("a", summed(9, 60, 3)).second
    rows = [[int(value / STEP) for value in row] + [int(1 / STEP)] for row in features.tolist()]
    own = [[row for row, its in zip(rows, labels.tolist(), strict=True) if its == label] for label in range(3)]
    means = [[Fraction(sum(column), len(some)) for column in zip(*some, strict=True)] for some in own]
    for i in range(FEATURES + 1):
        for j in range(FEATURES + 1):
            scatter = sum(
                (row[i] - mean[i]) * (row[j] - mean[j]) for some, mean in zip(own, means, strict=True) for row in some
            )
            exact = Fraction(3, 60) * scatter + sum(mean[i] * mean[j] for mean in means)
            assert abs(int(found[i, j]) - exact) <= Fraction(51, 100)


def test_classes_count_alike_whatever_their_images() -> None:
    """Repeating one class's images changes nothing but how well its own scatter is known."""
    features, labels = torch.eye(FEATURES)[:4], torch.tensor([0, 0, 1, 1])
    once = Totals.empty(FEATURES, STEP).plus("a", ExactSums.empty(FEATURES, 2, STEP).plus(features, labels))
    assert once.means()[:-1, 0].allclose(features[:2].double().mean(0))
    matrix = once.matrix()
    centred = features.double() - once.means()[:-1].T[labels]
    expected = 2 / 4 * centred.T @ centred + once.means()[:-1] @ once.means()[:-1].T
    assert matrix[:-1, :-1].allclose(expected, atol=STEP**2)
