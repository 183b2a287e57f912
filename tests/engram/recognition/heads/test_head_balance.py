"""Tests of the balance of a head's classes: offsets, and probabilities of rare classes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from engram import Examples
from engram.nn.capacity import TaskInfo
from engram.recognition.heads.head_balance import HeadBalance
from engram.recognition.predictions import Observation


def examples(good: int, defects: int) -> Examples:
    labels = torch.tensor([0] * good + [1] * defects)
    return Examples(torch.zeros(len(labels), 1, 8, 8, dtype=torch.uint8), labels, ("good", "defect"))


def logits(*odds: float) -> Tensor:
    """Logits whose second less the first is this."""
    return torch.tensor([[0.0, value] for value in odds])


def test_a_balanced_task_has_none() -> None:
    assert HeadBalance.fitted(logits(-1.0, 1.0), examples(1, 1), examples(9, 9)) is None


def fitted(*odds: float, defects: int) -> HeadBalance:
    found = HeadBalance.fitted(logits(*odds), examples(len(odds) - defects, defects), examples(990, 10))
    assert found is not None
    return found


def test_a_small_class_that_is_less_sure_is_met_half_way() -> None:
    balance = fitted(*[-4.0] * 100, -0.5, defects=1)
    assert balance.decisive(logits(-0.5)).argmax(1).tolist() == [1]
    assert balance.decisive(logits(-3.0)).argmax(1).tolist() == [0]


def test_one_odd_image_draws_no_large_class_to_itself() -> None:
    odds = torch.linspace(-4.0, -1.0, 100).tolist()
    balance = fitted(*odds, -9.0, defects=1)
    kept = balance.decisive(logits(*odds)).argmax(1) == 0
    assert float(kept.double().mean()) >= 0.97


def test_the_answer_is_the_balanced_one_and_its_probability_the_natural_one() -> None:
    balance = HeadBalance(torch.tensor([0.0, 1.0]), torch.tensor([0.99, 0.01]).log())
    task = TaskInfo("parts", ("good", "defect"), {})
    one = Observation(
        (task,), (logits(1.0, -2.0),), torch.ones(1), torch.zeros(2, 1), torch.ones(2, 1), balances=(balance,)
    )
    defect, good = one.predictions(top_k=2)
    assert (defect.label, good.label) == ("defect", "good")
    odds = torch.tensor(2.0).exp() / 99  # of defect against good: e to the logit and offset, times the prior
    assert defect.probability == pytest.approx(float(odds / (1 + odds)), rel=1e-5)
    assert [candidate.label for candidate in defect.top] == ["defect", "good"]
    assert sum(candidate.probability for candidate in defect.top) == pytest.approx(1.0)
    assert good.probability > 0.99
    assert [answer.label for answer in one[1:].predictions("parts")] == ["good"]


def test_probabilities_are_told_for_classes_as_often_as_they_came() -> None:
    generator = torch.Generator().manual_seed(0)
    train = examples(900, 100)
    truth = (torch.rand(20_000, generator=generator) < 0.1).long()
    odds = torch.randn(20_000, generator=generator) + 2.0 * truth - 1.0  # log odds of balanced classes: 2 (odds)
    given = torch.stack([torch.zeros_like(odds), 2 * odds], 1)
    balance = HeadBalance(torch.zeros(2), (torch.tensor([900.0, 100.0]) / len(train)).log())
    assert float(balance.temperature(given, truth)) == pytest.approx(1.0, rel=0.15)
    told = (given + balance.log_prior).softmax(1)[:, 1]
    assert float(told.mean()) == pytest.approx(0.1, abs=0.01)
