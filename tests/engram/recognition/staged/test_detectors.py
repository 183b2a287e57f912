"""Tests of detectors: the grid that a network's values are put on, whatever these are."""

from __future__ import annotations

import pytest
import torch

from engram.recognition.staged.detectors import LARGEST, Reading, ValueDetector
from engram.recognition.staged.exact_sums import ExactSums
from engram.recognition.staged.totals import Totals


def values(largest: float) -> torch.Tensor:
    """(60, 3): one of them always nothing."""
    drawn = torch.rand(60, 3, generator=torch.Generator().manual_seed(0))
    return drawn / drawn.max() * largest * torch.tensor([1.0, 0.5, 0.0])


@pytest.mark.parametrize("largest", [0.0, 1e-30, 1e-6, 1e-3, 0.3, 1.0, 50.0, 1e5])
def test_values_of_every_size_have_exact_sums_and_a_detector(largest: float) -> None:
    features, labels = values(largest), torch.arange(60) % 2
    reading = Reading.of(features, torch.ones(2, 3))
    assert torch.tensor(reading.step).log2() % 1 == 0
    read = reading(features)
    if largest >= 0.1:
        assert float((read - features).abs().max()) <= reading.step / 2
        assert float(features.max()) > reading.step * LARGEST / 2 - reading.step
    sums = ExactSums.empty(3, 2, reading.step).plus(read, labels)
    totals = Totals.empty(3, reading.step).plus("own", sums).plus("other", sums)
    assert bool((totals.second.diagonal() >= 0).all()), "nothing overflows"
    plain = torch.cat([read.double(), torch.ones(60, 1)], 1)
    expected = 2 * 2 / 60 * (plain.T @ plain)  # two tasks, each of two classes of the same size
    torch.testing.assert_close(totals.matrix(), expected, rtol=1e-3, atol=(reading.step**2))
    loaded = Totals.load(totals.dump())
    assert torch.equal(loaded.second, totals.second)
    assert ValueDetector.of(loaded).log_odds(read).isfinite().all()
