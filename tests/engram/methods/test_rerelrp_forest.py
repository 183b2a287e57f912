"""Tests of random forests beside scikit-learn's and a plain walk of their trees."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.ensemble import RandomForestClassifier
from torch import Tensor

from engram.checkpointing.progress import Reporter
from engram.checkpointing.tensors import pack
from engram.errors import Cancelled, DamagedSnapshot
from engram.methods.rerelrp.forest import LEAF, Forest, ForestSize

GROWTH = ForestSize(trees=30, depth=12, leaf=3)


def _rows(count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Rows of few distinct values, so that many lie exactly on a threshold; a noisy rule; uneven weights."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(0, 12, (count, 6), generator=generator).float() / 7
    noise = torch.rand(count, generator=generator)
    positive = (rows[:, 0] * rows[:, 1] + 0.4 * noise) > 0.7
    return rows, positive, torch.where(rows[:, 2] > 0.5, 1.0, 0.25)


def _sklearn(rows: Tensor, positive: Tensor, weights: Tensor) -> RandomForestClassifier:
    grown = RandomForestClassifier(
        n_estimators=GROWTH.trees, max_depth=GROWTH.depth, min_samples_leaf=GROWTH.leaf, random_state=5
    )
    return grown.fit(rows.numpy(), positive.numpy(), sample_weight=weights.double().numpy())


def _walk(forest: Forest, row: Tensor, root: int) -> float:
    """The plain way down one tree."""
    node = root
    while int(forest.feature[node]) != LEAF:
        left = float(row[int(forest.feature[node])]) <= float(forest.value[node])
        node = node + 1 if left else int(forest.right[node])
    return float(forest.value[node])


def test_a_forest_says_what_scikit_learn_says() -> None:
    train, asked = _rows(500, 0), _rows(700, 1)[0]
    forest = Forest.grow(*train, GROWTH, 5, Reporter())
    expected = _sklearn(*train).predict_proba(asked.numpy())[:, 1]
    assert float(np.std(expected)) > 0.1, "a forest that says the same of all rows proves nothing"
    np.testing.assert_allclose(forest.probability(asked).numpy(), expected, rtol=0, atol=1e-6)


def test_a_forest_says_what_walking_its_trees_says() -> None:
    forest = Forest.grow(*_rows(200, 2), GROWTH, 5, Reporter())
    asked = _rows(20, 3)[0]
    walked = [np.mean([_walk(forest, row, root) for root in forest.roots.tolist()]) for row in asked]
    np.testing.assert_allclose(forest.probability(asked).numpy(), walked, atol=1e-6)


def test_tensors_are_the_whole_forest() -> None:
    forest = Forest.grow(*_rows(200, 2), GROWTH, 5, Reporter())
    again = Forest.from_tensors({name: tensor.clone() for name, tensor in forest.tensors().items()}, features=6)
    asked = _rows(50, 3)[0]
    assert torch.equal(again.probability(asked), forest.probability(asked))
    assert forest.nbytes == 10 * len(forest.feature) + 4 * GROWTH.trees


def test_the_same_seed_grows_the_same_forest_and_another_does_not() -> None:
    first, again, other = (Forest.grow(*_rows(200, 2), GROWTH, seed, Reporter()) for seed in (1, 1, 2))
    assert all(torch.equal(tensor, again.tensors()[name]) for name, tensor in first.tensors().items())
    assert not torch.equal(first.value, other.value[: len(first.value)])


def test_growing_can_be_stopped() -> None:
    asked: list[bool] = []

    def stop() -> bool:
        asked.append(True)
        return len(asked) > 1

    with pytest.raises(Cancelled):
        Forest.grow(*_rows(200, 2), ForestSize(trees=200), 5, Reporter(None, stop))


@pytest.mark.parametrize("name", ["feature", "right", "roots"])
def test_nodes_that_lead_nowhere_are_refused(name: str) -> None:
    forest = Forest.grow(*_rows(200, 2), GROWTH, 5, Reporter())
    broken = getattr(forest, name).clone()
    broken[0] = 0 if name == "right" else 32000
    if name == "roots":
        broken[0] = len(forest.feature)
    with pytest.raises(DamagedSnapshot):
        Forest.from_tensors(dataclasses.replace(forest, **{name: broken}).tensors(), features=6)


def test_a_forest_without_one_of_its_tensors_is_refused() -> None:
    tensors = Forest.grow(*_rows(200, 2), GROWTH, 5, Reporter()).tensors()
    del tensors["right"]
    with pytest.raises(DamagedSnapshot):
        Forest.from_tensors(tensors, features=6)


def test_a_forest_is_asked_without_scikit_learn(tmp_path: Path) -> None:
    forest, asked = Forest.grow(*_rows(200, 2), GROWTH, 5, Reporter()), _rows(20, 3)[0]
    (tmp_path / "forest").write_bytes(pack("forest", {}, {**forest.tensors(), "asked": asked}))
    reader = """
import sys
from pathlib import Path
from engram.methods.rerelrp.forest import Forest
from engram.checkpointing.tensors import unpack
_, tensors = unpack("forest", Path(sys.argv[1]).read_bytes())
print(Forest.from_tensors(tensors, 6).probability(tensors["asked"]).tolist())
assert "sklearn" not in sys.modules
"""
    command = [sys.executable, "-c", reader, str(tmp_path / "forest")]
    answered = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert json.loads(answered) == forest.probability(asked).tolist()
