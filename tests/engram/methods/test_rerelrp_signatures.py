"""Tests of relevance signatures, and of exemplars chosen by herding."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from engram.data.herding import select_exemplars
from engram.explain.unit_relevance import normalised
from engram.methods.rerelrp.signatures import head_relevance, most_relevant
from engram.nn.network import pixels
from testing.data.patterns import bars, learned, network_of


def _features(count: int, size: int, seed: int) -> Tensor:
    return torch.randn(count, size, generator=torch.Generator().manual_seed(seed)) + 0.5


def _herded_slowly(features: Tensor, labels: Tensor, counts: list[int]) -> list[int]:
    """Herding by trying every image at every step."""
    rows = features.double().numpy()
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    chosen: list[int] = []
    for label, count in enumerate(counts):
        members = [index for index in range(len(rows)) if int(labels[index]) == label]
        goal, own = rows[members].mean(0), list[int]()
        for _ in range(min(count, len(members))):
            left = [index for index in members if index not in own]
            own.append(min(left, key=lambda index: float(np.linalg.norm(goal - rows[[*own, index]].mean(0)))))
        chosen += own
    return chosen


@pytest.mark.parametrize("count", [1, 7, 20, 200])
def test_herding_chooses_what_trying_everything_chooses(count: int) -> None:
    features, labels = _features(60, 5, 0), torch.tensor([0, 1, 1]).repeat(20)
    shares = [count // 2 + count % 2, count // 2]
    assert select_exemplars(features, labels, count).tolist() == _herded_slowly(features, labels, shares)


def test_the_mean_of_few_exemplars_is_near_the_mean_of_all() -> None:
    features, labels = _features(500, 8, 1), torch.zeros(500, dtype=torch.int64)
    unit = torch.nn.functional.normalize(features, dim=1)
    far = (unit[select_exemplars(features, labels, 20)].mean(0) - unit.mean(0)).norm()
    assert float(far) < 0.3 * float((unit[:20].mean(0) - unit.mean(0)).norm())


def test_the_most_relevant_units_are_kept_in_their_order() -> None:
    relevance = torch.tensor([[0.1, 0.5, -0.9, 0.2], [0.1, 0.1, 0.9, 0.2]])
    assert most_relevant(relevance, 2).tolist() == [1, 3]
    assert most_relevant(relevance, 9).tolist() == [0, 1, 2, 3]


def test_normalised_relevance_has_magnitudes_that_sum_to_one() -> None:
    relevance = torch.cat([_features(5, 4, 2) * 100, torch.zeros(1, 4)])
    torch.testing.assert_close(normalised(relevance).abs().sum(1), torch.tensor([1.0] * 5 + [0.0]))
    torch.testing.assert_close(normalised(relevance * 7), normalised(relevance))


def test_what_a_head_reads_is_relevant_by_its_share_of_the_highest_logit() -> None:
    network = network_of(learned("mlp", tasks=2))
    images = pixels(bars(0, count=4).images)
    for engram, (features, logits) in zip(network.stack, network(images), strict=True):
        relevance = head_relevance(features, engram.head.weight, logits)
        for row in range(len(images)):
            top = int(logits[row].argmax())
            parts = [float(features[row, i] * engram.head.weight[top, i]) for i in range(features.shape[1])]
            total = sum(abs(part) for part in parts)
            torch.testing.assert_close(relevance[row], torch.tensor([part / total for part in parts]))
