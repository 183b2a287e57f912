"""Tests of grouped trunks: many tasks at once have the bytes that each has by itself."""

from __future__ import annotations

from collections.abc import Iterator

import numpy
import pytest
import torch
from torch import Tensor

from engram.config.definition import InputShape
from engram.nn.backbones import layout_of
from engram.nn.closures.grouped import GROUPS, MOST_IMAGES, Stage, _cut
from engram.nn.network import Network
from engram.runtime import threads
from testing.data.patterns import definition
from tests.engram.nn.reading import asked_rows, random_engram, random_network

UNITS = (
    (16, 32, 64, 40),
    (1, 1, 1, 8),
    (8, 8, 8, 8),
    (16, 24, 48, 40),
    (5, 7, 9, 11),
    (16, 32, 56, 24),
    (16, 32, 64, 128),
)
"""Of tasks; a convolution of one channel may have a kernel of its own, whose bytes are others."""


@pytest.fixture(params=[1, 2])
def count(request: pytest.FixtureRequest) -> Iterator[int]:
    with threads(request.param):
        yield request.param


def _network(tasks: int = 9, backbone: str = "cnn", side: int = 32) -> Network:
    torch.manual_seed(tasks)
    shape = InputShape(channels=3, height=side, width=side)
    layout = layout_of(definition(backbone, 3, width=1.0 if backbone == "cnn" else 0.25, input=shape))
    network = Network(layout)
    for number in range(tasks):
        own = UNITS[number % len(UNITS)] if backbone == "cnn" else tuple(layout.widths.values())
        units = dict(zip(layout.layers, own, strict=True))
        network = network.appended(random_engram(layout, f"task {number}", (), units))
    return network


@pytest.fixture
def grouped() -> None:
    """Skips where this processor's kernels give groups other bytes."""
    asked = {f"task {number}": numpy.array([0]) for number in range(5)}
    if not _network(5).answers(asked, torch.rand(1, 3, 32, 32)):
        pytest.skip("kernels of this processor give groups other bytes")


@pytest.mark.parametrize(("side", "seed"), [(32, 0), (32, 1), (32, 2), (28, 3), (12, 4)])
def test_tasks_at_once_have_the_bytes_of_each_task(count: int, side: int, seed: int) -> None:
    """Maps of three by three pixels have a kernel of their own as well, whose bytes are others."""
    network = _network(8 + 5 * seed, side=side)
    images = torch.rand(32, 3, *network.layout.image_size)
    asked = asked_rows(network, len(images), MOST_IMAGES + 1, seed)
    found = network.answers(asked, images)
    takes = network._planner.trunks().takes
    single = network._planner.single_units().maps(images, asked)
    assert found.keys() == {task for task, rows in asked.items() if takes(task, len(rows))} | single.keys()
    for task, some in found.items():
        for value, expected in zip(some, network.answer(task, images, asked[task]), strict=True):
            assert torch.equal(value, expected), (task, len(asked[task]))


@pytest.mark.usefixtures("grouped")
def test_tasks_of_many_units_take_part() -> None:
    network = _network()
    takes = network._planner.trunks().takes
    assert all(takes(engram.task, 1) for engram in network.stack if engram.units["conv1"] > 1)


@pytest.mark.usefixtures("grouped")
def test_an_image_has_the_same_bytes_whatever_is_beside_it() -> None:
    network = _network()
    images = torch.rand(20, 3, *network.layout.image_size)
    pairs = {f"task {number}": numpy.array([number, number + 1]) for number in (3, 5, 6)}
    once = network.answers({"task 0": numpy.array([3]), **pairs}, images)
    images[4:] *= 1e4
    other = network.answers({f"task {n}": numpy.array([3, n + 5, n + 6]) for n in (0, 2, 3, 4, 5, 6, 7)}, images)
    assert torch.equal(once["task 0"][1][0], other["task 0"][1][0])
    assert torch.equal(once["task 3"][1][0], other["task 3"][1][0])
    assert not torch.equal(once["task 3"][1][1], other["task 3"][1][1])


def test_few_groups_and_what_reads_others_are_left_to_each_task() -> None:
    network = _network(3)
    images = torch.rand(32, 3, *network.layout.image_size)
    assert network.answers({"task 0": numpy.arange(2), "task 2": numpy.arange(2)}, images) == {}
    assert _network(4, "resnet18").answers({f"task {n}": numpy.arange(2) for n in range(4)}, images) == {}
    reading = random_network("cnn", owners=8, seed=1)
    given = torch.rand(4, 1, *reading.layout.image_size)
    found = reading.answers({engram.task: numpy.arange(2) for engram in reading.stack}, given)
    assert found.keys() <= {engram.task for engram in reading.stack if not engram.reads}


@pytest.mark.usefixtures("grouped")
@torch.no_grad()
def test_a_head_that_is_rescaled_answers_so_at_once() -> None:
    network = _network(5)
    images = torch.rand(8, 3, *network.layout.image_size)
    asked = {engram.task: numpy.array([1, 5]) for engram in network.stack}
    before = network.answers(asked, images)["task 2"][1]
    engram = network.stack[2]
    engram.head.weight.mul_(2)
    engram.head.bias.mul_(2)
    assert torch.equal(network.answers(asked, images)["task 2"][1], 2 * before)


@pytest.mark.usefixtures("grouped")
def test_a_task_that_has_other_bytes_in_groups_is_left_to_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a kernel might give them that sums up otherwise where its trial saw no difference."""
    network, plain = _network(6), Stage.__call__

    def differing(self: Stage, values: Tensor, tasks: Tensor) -> Tensor:
        found = plain(self, values, tasks)
        each = found.shape[1] // len(tasks)
        for place in (tasks == 1).nonzero().flatten().tolist():  # `task 1` has too few units to take part
            if len(found) == 2:
                found[1, place * each : (place + 1) * each] *= 1 + 2.0**-22
        return found

    monkeypatch.setattr(Stage, "__call__", differing)
    images = torch.rand(8, 3, *network.layout.image_size)
    for images_each in range(1, 5):
        asked = {engram.task: numpy.arange(images_each) for engram in network.stack}
        found = network.answers(asked, images)
        assert ("task 2" in found) is (images_each == 1)
        assert "task 0" in found
        for task, some in found.items():
            for value, expected in zip(some, network.answer(task, images, asked[task]), strict=True):
                assert torch.equal(value, expected), task


@pytest.mark.usefixtures("grouped")
def test_groups_are_proved_whatever_type_numbers_have_by_default() -> None:
    network, images = _network(5), torch.rand(2, 3, 32, 32)
    asked = {engram.task: numpy.arange(2) for engram in network.stack}
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        found = network.answers(asked, images)
    finally:
        torch.set_default_dtype(before)
    assert found.keys() == network.answers(asked, images).keys()
    assert found


@pytest.mark.usefixtures("grouped")
def test_another_number_of_threads_is_left_to_each_task() -> None:
    network = _network(5)
    images, asked = torch.rand(8, 3, *network.layout.image_size), {f"task {n}": numpy.array([1]) for n in range(5)}
    with threads(1):
        assert network.answers(asked, images)
    with threads(2):
        assert network.answers(asked, images) == {}


@pytest.mark.parametrize("groups", range(1, 30))
def test_groups_are_cut_into_parts_of_few_sizes(groups: int) -> None:
    given = [(str(number), numpy.arange(2)) for number in range(groups)]
    parts = list(_cut(given))
    assert [task for part, _ in parts for task, _ in part] == [task for task, _ in given]
    assert all(size in GROUPS and 0 <= size - len(part) <= 1 for part, size in parts)
