"""Tests of what every method stores after learning, bit for bit, by digests of an earlier commit.

`files/learned-digests.json` was written by commits 0ab2d93 (recipe 1) and de32d30 (recipe 3, the staged models) on the
machine that it names, and of learning 3 with the commit that brought it, on another; where nothing was written down,
that two runs are equal is all that can be asked.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from testing.data.learned_digests import MODELS, digests_of, machine

SLOW = {"eidetic-resnet18"}
"""What takes seconds; the same blocks are those of `staged-mirror`."""

TWICE = ("eidetic-mlp", "rnf-mlp", "rerelrp-published", "rmn-mlp", "sharc-gaussian", "staged-mlp", "staged-mirror")
"""What is learned twice where nothing was written down: one of every method and network."""

LATER = {"staged-learning-3"}
"""What came after the first machine was written down."""

WRITTEN = json.loads((Path(__file__).parent / "files" / "learned-digests.json").read_text())
OURS = WRITTEN.get(machine(numbers=True)) or WRITTEN.get(machine()) or {}
"""Of this machine; the first one was written down without its processor's numbers."""


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in (MODELS if OURS else TWICE)],
)
def test_what_is_learned_is_what_was_learned_before(name: str) -> None:
    found = digests_of(name)
    assert found == (OURS.get(name) or digests_of(name))


def test_every_kind_was_written_down() -> None:
    assert set().union(*WRITTEN.values()) == MODELS.keys()
    for written in WRITTEN.values():
        assert MODELS.keys() - LATER <= written.keys() <= MODELS.keys()
    assert MODELS.keys() >= SLOW.union(TWICE)
