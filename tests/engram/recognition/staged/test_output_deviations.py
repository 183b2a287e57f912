"""Tests of output deviations: what a network sees in strangers and hardly in known images."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from engram.nn.commons.outputs import Outputs
from engram.recognition.staged.exact_sums import ExactSums
from engram.recognition.staged.joined.joined_sums import JoinedSums
from engram.recognition.staged.joined.joined_totals import JoinedTotals
from engram.recognition.staged.joined.output_deviations import LEAST_SPREAD, OutputDeviations

STEP, READ, WIDTH, KNOWN = 2.0**-5, 6, 9, 5
"""The classifier reads the first of the features; it has as many outputs as are known."""
SIZES = ((40, 40), (25, 60))
"""Images of each class, of two tasks."""


def features(task: int, label: int, count: int) -> Tensor:
    generator = torch.Generator().manual_seed(10 * task + label)
    drawn = 3 * torch.randn(WIDTH, generator=generator) + torch.randn(count, WIDTH, generator=generator)
    return (drawn / STEP).round() * STEP


def images(task: int) -> tuple[Tensor, Tensor]:
    parts = [features(task, label, count) for label, count in enumerate(SIZES[task])]
    return torch.cat(parts), torch.repeat_interleave(torch.arange(len(parts)), torch.tensor(SIZES[task]))


def totals_of(*tasks: tuple[Tensor, Tensor]) -> JoinedTotals:
    found = JoinedTotals.empty([WIDTH], [STEP])
    for number, given in enumerate(tasks):
        sums = ExactSums.empty(WIDTH, 2, STEP).plus(*given)
        found = found.plus(f"task {number}", JoinedSums((sums,)))
    return found


@pytest.fixture
def outputs() -> Outputs:
    generator = torch.Generator().manual_seed(7)
    scales = 2.0 ** torch.randint(-1, 2, (READ,), generator=generator)
    return Outputs(0, 0, scales, torch.randn(KNOWN, READ, generator=generator))


def test_mean_and_deviation_are_over_all_classes_alike(outputs: Outputs) -> None:
    tasks = [images(0), images(1)]
    found = OutputDeviations.of(totals_of(*tasks), outputs)
    said = [outputs(part[labels == label]).double() for part, labels in tasks for label in range(2)]
    assert found.centres.double().allclose(torch.stack([one.mean(0) for one in said]).mean(0), atol=1e-4)
    # Two tasks of equally many classes: the scatter within each is shared by its classes.
    within = [
        torch.cat([one - one.mean(0) for one in said[2 * task : 2 * task + 2]]).square().mean(0) for task in range(2)
    ]
    between = torch.stack([one.mean(0) for one in said]).var(0, unbiased=False)
    assert found.scales.double().allclose((torch.stack(within).mean(0) + between).sqrt(), rtol=1e-4)


def test_an_output_that_no_known_class_has_tells(outputs: Outputs) -> None:
    found = OutputDeviations(torch.zeros(KNOWN), torch.ones(KNOWN))
    usual, other = torch.zeros(1, KNOWN), torch.zeros(1, KNOWN)
    other[0, 3] = 4.0
    assert float(found.unusual(other)) > float(found.unusual(usual)) + 2
    assert float(found.unusual(-other)) < float(found.unusual(usual)), "what it sees less of is nothing new"
    narrow = OutputDeviations(torch.zeros(KNOWN), torch.full((KNOWN,), 4.0))
    assert float(narrow.unusual(other)) < float(found.unusual(other)), "what known classes show as well"


def test_a_left_out_image_is_as_one_that_was_never_learned_from(outputs: Outputs) -> None:
    tasks = [images(0), images(1)]
    totals, (given, labels) = totals_of(*tasks), tasks[1]
    whole = OutputDeviations.of(totals, outputs)
    found, naive = whole.left_out(totals, outputs, given, labels), whole.unusual(outputs(given))
    rows = [0, 7, 24, 25, 60, 84]
    exact = torch.stack(
        [
            OutputDeviations.of(
                totals_of(tasks[0], (given[torch.arange(len(given)) != row], labels[torch.arange(len(given)) != row])),
                outputs,
            ).unusual(outputs(given[row : row + 1]))[0]
            for row in rows
        ]
    )
    missed = (found[rows] - exact).abs()
    assert float(missed.max()) < 0.25 * float((naive[rows] - exact).abs().max())
    assert float(missed.max()) < 0.02


def test_outputs_of_images_that_are_all_alike_have_a_deviation(outputs: Outputs) -> None:
    alike = torch.ones(30, WIDTH), torch.repeat_interleave(torch.arange(2), 15)
    found = OutputDeviations.of(totals_of(alike), outputs)
    assert bool((found.scales > 0).all())
    assert bool(found.left_out(totals_of(alike), outputs, *alike).isfinite().all())
    assert bool((found.scales >= 0.99 * LEAST_SPREAD * found.scales.mean()).all())


def test_the_classifier_reads_its_own_features_among_those_of_all(outputs: Outputs) -> None:
    given = torch.randn(3, READ, generator=torch.Generator().manual_seed(1))
    beside = Outputs(1, 4, outputs.scales, outputs.weight)
    assert beside(torch.cat([torch.ones(3, 4), given, torch.ones(3, 2)], 1)).equal(outputs.of(given))
