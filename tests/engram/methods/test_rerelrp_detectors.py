"""Tests of ReReLRP's chain of task detectors."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor

from engram.checkpointing.progress import Reporter
from engram.errors import DamagedSnapshot
from engram.methods.rerelrp.detectors import Detector, DetectorChain
from engram.methods.rerelrp.forest import ForestSize
from engram.methods.rerelrp.signatures import Signatures
from engram.training.evaluation.calibration_error import calibration_error

GROWTH = ForestSize(trees=30, depth=12, leaf=3)
FEATURES = 6


def _rows(task: int, subnetwork: int, count: int, seed: int, apart: float) -> Tensor:
    """Signatures of a task in a sub-network: noise around a place of the task's own."""
    generator = torch.Generator().manual_seed(1000 * seed + 10 * task + subnetwork)
    rows = torch.randn(count, FEATURES, generator=generator)
    rows[:, task] += apart
    return rows


def _signatures(tasks: int, count: int = 120, seed: int = 0, apart: float = 2.0) -> list[Signatures]:
    return [
        Signatures(
            tuple(_rows(task, j, count, seed, apart) for j in range(task + 1)),
            tuple(_rows(task, j, count, seed + 1, apart) for j in range(task + 1)),
        )
        for task in range(tasks)
    ]


def _asked(task: int, tasks: int, count: int, apart: float = 2.0) -> list[Tensor]:
    """Signatures of new images of a task in every sub-network that has a detector."""
    return [_rows(task, j, count, 7, apart) for j in range(tasks - 1)]


def _slowly(chain: DetectorChain, asked: list[Tensor], row: int) -> list[float]:
    """P(task i) = p_i prod_{j < i} (1 - p_j), by loops and without logarithms."""
    probabilities, left = [], 1.0
    for detector, signature in zip(chain.detectors, asked, strict=True):
        share, trees = float(detector.forest.probability(signature)[row]), len(detector.forest.roots)
        smooth = (share * trees + 1) / (trees + 2)
        odds = float(detector.slope) * np.log(smooth / (1 - smooth)) + float(detector.shift)
        own = 1 / (1 + np.exp(-odds))
        probabilities.append(left * own)
        left *= 1 - own
    return [*probabilities, left]


def test_a_chain_says_what_its_detectors_say_one_after_another() -> None:
    chain = DetectorChain.trained(_signatures(4), GROWTH, 3, Reporter())
    asked = _asked(2, 4, 25)
    logs = chain.log_probabilities(asked, 25)
    expected = [_slowly(chain, asked, row) for row in range(25)]
    np.testing.assert_allclose(logs.exp().numpy(), expected, atol=1e-5)
    torch.testing.assert_close(logs.exp().sum(1), torch.ones(25))
    assert logs.isfinite().all()


def test_tasks_are_recognised_and_their_probabilities_are_honest() -> None:
    chain = DetectorChain.trained(_signatures(4, count=300), GROWTH, 3, Reporter())
    logs = torch.cat([chain.log_probabilities(_asked(task, 4, 300), 300) for task in range(4)])
    best, right = logs.max(1).values.exp(), logs.argmax(1) == torch.arange(4).repeat_interleave(300)
    assert float(right.double().mean()) > 0.75
    assert calibration_error(best, right) < 0.1


def test_a_single_task_is_certain() -> None:
    chain = DetectorChain.trained(_signatures(1), GROWTH, 3, Reporter())
    assert torch.equal(chain.log_probabilities([], 3), torch.zeros(3, 1))


def test_tasks_count_equally_however_many_images_they_have() -> None:
    """Where signatures tell nothing, the probability of each task is its share of the tasks."""
    pieces = _signatures(3, count=200, apart=0.0)
    few = dataclasses.replace(pieces[1], learned=tuple(rows[:40] for rows in pieces[1].learned))
    chain = DetectorChain.trained([pieces[0], few, pieces[2]], GROWTH, 3, Reporter())
    mean = chain.log_probabilities(_asked(0, 3, 400, apart=0.0), 400).exp().mean(0)
    torch.testing.assert_close(mean, torch.full((3,), 1 / 3), atol=0.08, rtol=0)


def test_a_detector_learns_from_its_own_and_later_tasks_alone() -> None:
    pieces = _signatures(3)
    elsewhere = tuple(rows + 100 for rows in pieces[0].learned)
    first = Detector.trained(pieces, 1, GROWTH, 3, Reporter())
    other = [dataclasses.replace(pieces[0], learned=elsewhere), *pieces[1:]]
    second = Detector.trained(other, 1, GROWTH, 3, Reporter())
    asked = _asked(1, 3, 20)[1]
    assert torch.equal(first.log_odds(asked), second.log_odds(asked))


def test_tensors_are_the_whole_chain() -> None:
    chain = DetectorChain.trained(_signatures(3), GROWTH, 3, Reporter())
    again = DetectorChain.from_tensors(chain.tensors(), [FEATURES, FEATURES])
    asked = _asked(0, 3, 20)
    assert torch.equal(again.log_probabilities(asked, 20), chain.log_probabilities(asked, 20))
    tensors = chain.tensors()
    del tensors["detector.1.slope"]
    with pytest.raises(DamagedSnapshot):
        DetectorChain.from_tensors(tensors, [FEATURES, FEATURES])


def test_signatures_are_read_as_they_were_written() -> None:
    (_, piece) = _signatures(2, count=5)
    again = Signatures.load(piece.dump())
    for given, read in ((piece.learned, again.learned), (piece.held_out, again.held_out)):
        assert all(torch.equal(a, b) for a, b in zip(given, read, strict=True))
    with pytest.raises(DamagedSnapshot):
        Signatures.load(b"nonsense")
