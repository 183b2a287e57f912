"""Tests of the metrics of continual learning."""

from __future__ import annotations

import pytest
import torch

from benchmarks.harness.metrics import average_accuracy, backward_transfer, forgetting
from engram.training.evaluation.calibration_error import calibration_error

MATRIX = [[0.9], [0.7, 0.8], [0.8, 0.6, 1.0]]


def test_the_matrix_by_hand() -> None:
    assert average_accuracy(MATRIX) == pytest.approx(0.8)
    assert forgetting(MATRIX) == pytest.approx(((0.9 - 0.8) + (0.8 - 0.6)) / 2)
    assert backward_transfer(MATRIX) == pytest.approx(((0.8 - 0.9) + (0.6 - 0.8)) / 2)


def test_one_task_has_nothing_to_forget() -> None:
    assert forgetting([[0.5]]) == backward_transfer([[0.5]]) == 0.0


def test_calibration_error_against_a_plain_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    probabilities = torch.rand(500, generator=generator)
    right = torch.rand(500, generator=generator) < probabilities**2
    expected = 0.0
    for number in range(15):
        inside = [(p, r) for p, r in zip(probabilities.tolist(), right.tolist(), strict=True) if int(p * 15) == number]
        if inside:
            confidence = sum(p for p, _ in inside) / len(inside)
            accuracy = sum(r for _, r in inside) / len(inside)
            expected += len(inside) / 500 * abs(confidence - accuracy)
    assert calibration_error(probabilities, right) == pytest.approx(expected, abs=1e-6)


def test_honest_probabilities_have_no_calibration_error() -> None:
    generator = torch.Generator().manual_seed(1)
    probabilities = torch.rand(200_000, generator=generator)
    right = torch.rand(200_000, generator=generator) < probabilities
    assert calibration_error(probabilities, right) < 0.01
    assert calibration_error(probabilities, torch.zeros(200_000)) == pytest.approx(0.5, abs=0.01)
