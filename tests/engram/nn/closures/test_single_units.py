"""Tests of single-unit trunks: many tasks at once have the bytes that each has by itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor

from engram.config.definition import InputShape
from engram.nn.backbones import layout_of
from engram.nn.closures import single_units
from engram.nn.closures.single_units import MOST_IMAGES, SIZES, Order, _parts
from engram.nn.network import Network
from engram.nn.reads import whole
from engram.nn.shapes import Rows
from engram.runtime import threads
from testing.data.patterns import definition
from tests.engram.nn.reading import asked_rows, random_engram

BACKBONES = ("resnet18", "cnn")


@pytest.fixture(params=[1, 2])
def count(request: pytest.FixtureRequest) -> Iterator[int]:
    with threads(request.param):
        yield request.param


def _network(tasks: int, backbone: str = "resnet18", side: int = 32, wide: int = 4) -> Network:
    """Tasks of one unit in each layer, but for every `wide`-th, which has two."""
    torch.manual_seed(tasks)
    shape = InputShape(channels=3, height=side, width=side)
    layout = layout_of(definition(backbone, 3, width=0.25, input=shape))
    network = Network(layout)
    for number in range(tasks):
        units = dict.fromkeys(layout.layers, 2 if number % wide == wide - 1 else 1)
        units |= {"dense": 16} if backbone == "cnn" else {}
        engram = random_engram(layout, f"task {number}", (), units)
        for name, value in engram.state_dict().items():
            if "norm.bias" in name or "linear.bias" in name:
                value.add_(1.0)  # else what is rectified would often be zeros, whatever came before
        network = network.appended(engram)
    return network


def _shapes(network: Network) -> dict[str, frozenset[int]]:
    return network._planner.single_units()._shapes


@pytest.fixture
def alike() -> None:
    """Skips where this processor's kernels sum up otherwise for many channels."""
    if not all(2 in fit for fit in _shapes(_network(3)).values()):
        pytest.skip("kernels of this processor give many channels other bytes")


def _assert_as_alone(network: Network, asked: dict[str, Rows], images: Tensor) -> set[str]:
    found = network.answers(asked, images)
    assert all(features.abs().max() > 0 for features, _ in found.values()), "zeros would prove nothing"
    for task, some in found.items():
        for value, expected in zip(some, network.answer(task, images, asked[task]), strict=True):
            assert torch.equal(value, expected), (task, len(asked[task]))
    return set(found)


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize(("side", "seed"), [(32, 0), (32, 1), (28, 2), (12, 3)])
def test_tasks_at_once_have_the_bytes_of_each_task(count: int, backbone: str, side: int, seed: int) -> None:
    network = _network(5 + 9 * seed, backbone, side)
    images = torch.rand(32, 3, *network.layout.image_size)
    asked = asked_rows(network, len(images), MOST_IMAGES + 1, seed)
    found = _assert_as_alone(network, asked, images)
    takes = network._planner.single_units().takes
    assert found >= {task for task, rows in asked.items() if takes(task, len(rows))}


@pytest.mark.usefixtures("alike")
@pytest.mark.parametrize("backbone", BACKBONES)
def test_tasks_of_one_unit_in_each_layer_take_part_and_no_others(backbone: str) -> None:
    shapes = _shapes(_network(9, backbone))
    assert shapes.keys() == {f"task {number}" for number in range(9) if number % 4 != 3}
    assert backbone != "resnet18" or all(2 in fit for fit in shapes.values())


@pytest.mark.usefixtures("alike")
def test_an_image_has_the_same_bytes_whatever_is_beside_it() -> None:
    network = _network(9)
    images = torch.rand(20, 3, *network.layout.image_size)
    once = network.answers({f"task {number}": numpy.array([number, number + 1]) for number in (0, 1, 2, 5)}, images)
    images[4:] *= 1e4
    other = network.answers({f"task {number}": numpy.array([number, number + 1]) for number in range(9)}, images)
    assert torch.equal(once["task 1"][1], other["task 1"][1])
    assert not torch.equal(once["task 5"][1], other["task 5"][1])


@pytest.mark.usefixtures("alike")
def test_what_reads_others_and_one_task_alone_are_left_to_each() -> None:
    assert _shapes(_network(2, wide=2)) == {}
    lone = {f"task {number}": numpy.arange(2) for number in (0, 3, 7)}
    network = _network(8)
    assert "task 0" in _shapes(network)
    assert set(network.answers(lone, torch.rand(4, 3, *network.layout.image_size))) == set()
    layout = network.layout
    reads = whole("task 0", network.stack[0].units)
    reading = network.appended(random_engram(layout, "reading", (reads,), dict.fromkeys(layout.layers, 1)))
    assert _shapes(reading).keys() == {f"task {number}" for number in (0, 1, 2, 4, 5, 6)}


def test_networks_of_large_maps_and_those_without_maps_are_left_to_each() -> None:
    assert _shapes(_network(3, side=32)).keys()
    assert _shapes(_network(3, "cnn", side=160)) == {}
    assert _shapes(_network(3, "mlp")) == {}


@pytest.mark.usefixtures("alike")
def test_a_task_that_has_other_bytes_beside_others_is_left_to_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a kernel might give them that sums up otherwise where its trial saw no difference."""
    network, plain = _network(6), single_units._convolved

    def differing(*given: Any, **options: Any) -> Tensor:
        found = plain(*given, **options)
        found[:, 2] *= 1 + 2.0**-20  # the second task's first image, where each has two
        return found

    shapes = _shapes(network)
    assert 2 in shapes["task 0"] & shapes["task 1"]
    network._planner._single_units = None
    monkeypatch.setattr(single_units, "_convolved", differing)
    shapes = _shapes(network)
    assert 2 in shapes["task 0"]
    assert 2 not in shapes["task 1"]


def test_where_no_order_is_alike_no_task_takes_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(single_units, "_order", lambda kind, count: Order(False, frozenset()))
    network = _network(6)
    assert not any(_shapes(network).values())
    assert network.answers({f"task {n}": numpy.arange(2) for n in range(6)}, torch.rand(2, 3, 32, 32)) == {}


@pytest.mark.usefixtures("alike")
def test_orders_are_told_apart() -> None:
    """A kernel that summed up in the wrong order would be found out: the other order has other bytes."""
    network = _network(3)
    owner, trunk = network.stack[0], single_units._trunk(network.layout)
    operations = {node.name: network._planner._operation_of(owner, node) for node in trunk}
    kinds = single_units._kinds(trunk, operations, (3, 32, 32))
    for kind in (kind for kind in kinds.values() if kind.kernel == 3):
        order = single_units._order(kind, torch.get_num_threads())
        other = single_units._shapes_alike(kind, turned=not order.turned)
        assert order.shapes
        assert not other.shapes & order.shapes


@pytest.mark.usefixtures("alike")
def test_another_number_of_threads_is_left_to_each_task() -> None:
    network = _network(5)
    images, asked = torch.rand(8, 3, *network.layout.image_size), {f"task {n}": numpy.array([1, 2]) for n in range(5)}
    with threads(1):
        assert network.answers(asked, images)
    with threads(2):
        assert network.answers(asked, images) == {}


@pytest.mark.parametrize("counts", [[1], [8] * 8, [8] * 9, [5] * 30, [1] * 100])
def test_tasks_are_cut_into_parts_of_as_many_images_as_there_are_channels(counts: list[int]) -> None:
    asked = {str(number): numpy.arange(count) for number, count in enumerate(counts)}
    parts = list(_parts(asked))
    assert [task for part in parts for task in part] == list(asked)
    assert all(0 < sum(map(len, part.values())) <= SIZES[-1] for part in parts)
