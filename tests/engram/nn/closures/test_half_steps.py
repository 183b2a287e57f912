"""Tests of half steps: batches between two shapes have the bytes of the larger one."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import chain, repeat
from typing import Any
from weakref import WeakKeyDictionary

import numpy
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from engram.config.engines import Precision
from engram.methods.eidetic.staged.method import StagedEidetic
from engram.nn.closures import half_steps, plan, prepacked_weights
from engram.nn.closures.engines import ENGINES
from engram.nn.closures.grouped import GroupedTrunks
from engram.nn.closures.half_steps import HALF_STEPS
from engram.nn.closures.operations import Convolution, RectifiedSum
from engram.nn.network import Network
from engram.nn.shapes import SHAPES
from engram.runtime import has_bf16, threads
from testing.data.patterns import learned
from tests.engram.nn.reading import random_network

COUNTS = (3, 5, 6, 7, 12, 13, 19, 28)


@pytest.fixture(params=[1, 2])
def count(request: pytest.FixtureRequest) -> Iterator[int]:
    with threads(request.param):
        yield request.param


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small networks are tried as well, which take less time here, however busy this machine is."""
    monkeypatch.setattr(plan, "LEAST_WORK", 0)
    monkeypatch.setattr(plan, "MOST_SECONDS", 600.0)


def _network(backbone: str = "resnet18", precision: Precision = "fp32", **options: int) -> Network:
    network = random_network(backbone, **options)
    return Network(network.layout, network.stack, engine=ENGINES["eager-1", precision])


def _prepared(backbone: str = "resnet18", precision: Precision = "fp32", **options: int) -> Network:
    """A network whose half steps were tried."""
    network = _network(backbone, precision, **options)
    network.prepare()
    return network


def _sizes(network: Network, task: str = "task 0") -> set[int]:
    return set(network._planner.sizes(task)) - set(SHAPES)


def _require_alike() -> None:
    if _sizes(_prepared(owners=1)) != set(HALF_STEPS):
        pytest.skip("kernels of this processor give other batches other bytes")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    ("count", "backbone"),
    [
        *[(count, backbone) for count in (1, 2) for backbone in ("resnet18", "cnn")],
        (1, "resnet50"),
        pytest.param(2, "resnet50", marks=pytest.mark.slow),
    ],
    indirect=["count"],
)
def test_any_number_of_images_has_the_bytes_that_it_has_in_shapes(
    count: int, backbone: str, precision: Precision
) -> None:
    owners = 1 if (count, backbone) == (2, "resnet18") else 2  # which takes long where others are at work
    network = _network(backbone, precision, owners=owners, seed=count)
    prepared = _prepared(backbone, precision, owners=owners, seed=count)
    if backbone == "resnet18" and precision == "fp32" and _sizes(_prepared(owners=1)):
        assert all(_sizes(prepared, engram.task) for engram in network.stack)
    images = torch.rand(40, 1, *network.layout.image_size)
    for many in COUNTS:
        rows = torch.randperm(40, generator=torch.Generator().manual_seed(many))[:many].sort().values.numpy()
        for engram in network.stack:
            expected = network.answer(engram.task, images, rows)
            found = prepared.answer(engram.task, images, rows)
            assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True)), (engram.task, many)
        found = prepared.answer(engram.task, images[rows])
        assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True)), many


@pytest.mark.skipif(not has_bf16(torch.device("cpu")), reason="this processor has no bfloat16")
def test_some_networks_in_16_bits_have_half_steps() -> None:
    assert any(_sizes(_prepared(precision="bf16", owners=1, seed=seed)) for seed in range(3))


def test_batches_of_half_steps_are_computed_in_no_more_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    _require_alike()
    network, seen = _prepared(owners=1), set[int]()
    plain = network._planner.answering("task 0")

    def watched(images: Tensor) -> tuple[Tensor, ...]:
        seen.add(len(images))
        return plain(images)

    monkeypatch.setattr(network._planner, "answering", lambda task: watched)
    images = torch.rand(16, 1, *network.layout.image_size)
    for many, size in ((3, 3), (5, 6), (6, 6), (7, 8), (9, 12), (12, 12), (13, 16)):
        seen.clear()
        network.answer("task 0", images, numpy.arange(many))
        assert seen == {size}, many


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("half", HALF_STEPS)
def test_a_convolution_with_other_bytes_is_found_out(
    monkeypatch: pytest.MonkeyPatch, half: int, precision: Precision
) -> None:
    """In the last one of a network, if it sums up in another order, as the last bits of sums show."""
    if _sizes(_prepared(precision=precision, owners=1)) != set(HALF_STEPS):
        pytest.skip("kernels of this processor give other batches other bytes")
    network, plain = _network(precision=precision, owners=1), F.conv2d
    convolutions = [one for one, _, _ in network._planner.plan("task 0").operations if isinstance(one, Convolution)]
    last = convolutions[-1].weight.shape

    def differing(values: Tensor, weight: Tensor, *given: Any) -> Tensor:
        if weight.shape == last and len(values) == half:
            turned = torch.randperm(weight.shape[1], generator=torch.Generator().manual_seed(0))
            values, weight = values[:, turned], weight[:, turned]
        found: Tensor = plain(values, weight, *given)
        return found

    monkeypatch.setattr(F, "conv2d", differing)
    monkeypatch.setattr(half_steps, "_convolved", half_steps._convolved.__wrapped__)
    monkeypatch.setattr(prepacked_weights, "same_bytes", prepacked_weights.same_bytes.__wrapped__)
    monkeypatch.setattr(plan, "_TRIED", WeakKeyDictionary())
    network.prepare()
    assert _sizes(network) == set(HALF_STEPS) - {half}


def test_an_operation_with_other_bytes_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    _require_alike()
    network, plain = random_network("resnet18", owners=1), RectifiedSum.__call__

    def differing(self: RectifiedSum, *given: Tensor) -> Tensor:
        found = plain(self, *given)
        if len(found) == HALF_STEPS[1]:
            found[-1, -1, 0, 0] += 1
        return found

    monkeypatch.setattr(RectifiedSum, "__call__", differing)
    network.prepare()
    assert _sizes(network) == set(HALF_STEPS) - {HALF_STEPS[1]}


def test_no_half_steps_without_trial_and_for_other_threads() -> None:
    _require_alike()
    assert _sizes(random_network("resnet18", owners=1)) == set()
    with threads(1):
        network = _prepared(owners=1)
        assert _sizes(network)
    with threads(2):
        assert _sizes(network) == set()


@pytest.mark.parametrize(
    ("bound", "more", "tried"), [("MOST_WORK", -1, False), ("MOST_WORK", 0, True), ("LEAST_WORK", 1, False)]
)
def test_small_and_large_networks_are_not_tried(
    monkeypatch: pytest.MonkeyPatch, bound: str, more: int, tried: bool
) -> None:
    _require_alike()
    network = random_network("resnet18", owners=1)
    monkeypatch.setattr(plan, bound, network.closure("task 0").total + more)
    network.prepare()
    assert bool(_sizes(network)) is tried


def test_tasks_that_are_computed_at_once_are_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    _require_alike()
    network = random_network("resnet18", owners=1)
    monkeypatch.setattr(GroupedTrunks, "takes", lambda self, task, images: images == 2)
    network.prepare()
    assert _sizes(network) == set()


def test_trials_end_after_a_while_and_the_newest_task_is_tried_first(monkeypatch: pytest.MonkeyPatch) -> None:
    _require_alike()
    network = random_network("resnet18", owners=3)
    monkeypatch.setattr(plan, "MOST_SECONDS", -1.0)
    network.prepare()
    assert not any(_sizes(network, engram.task) for engram in network.stack)
    monkeypatch.setattr(plan, "MOST_SECONDS", 1.0)
    clock = chain((0.0, 0.5, 1.5), repeat(2.0))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    network.prepare()
    assert [bool(_sizes(network, engram.task)) for engram in network.stack] == [False, False, True]


@pytest.mark.parametrize("name", ["_filled", "alike"])
def test_where_there_is_no_memory_for_a_trial_there_are_no_half_steps(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def full(*given: object) -> Tensor:
        raise RuntimeError("not enough memory")

    monkeypatch.setattr(half_steps, name, full)
    monkeypatch.setattr(half_steps, "_convolved", half_steps._convolved.__wrapped__)
    assert _sizes(_prepared(owners=1)) == set()


def test_a_model_that_is_prepared_has_tried_its_tasks() -> None:
    method = learned("cnn", tasks=1).method
    assert isinstance(method, StagedEidetic)
    method.prepare()
    assert method.serving().network._planner._sizes[1].keys() == {"task 0"}


def test_an_engram_is_tried_once_for_all_versions_that_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    tried, network = list[int](), random_network("resnet18", owners=2)

    def counted(steps: Sequence[object], image: tuple[int, int, int]) -> tuple[int, ...]:
        tried.append(len(steps))
        return SHAPES

    monkeypatch.setattr(plan, "sizes", counted)
    network.prepare()
    assert len(tried) == 2
    Network(network.layout, network.stack).prepare()
    assert len(tried) == 2
    with threads(1 if torch.get_num_threads() > 1 else 2):
        Network(network.layout, network.stack).prepare()
    assert len(tried) == 4
