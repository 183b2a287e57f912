"""Tests of closures: just what is read is computed, beside a slow reference that computes everything."""

from __future__ import annotations

import copy
import random

import pytest
import torch

from engram.nn.closures.operations import MaxPool
from engram.nn.layout import IMAGE, Node
from engram.nn.network import Engram, Network
from engram.nn.reads import Read, whole
from engram.nn.shapes import SHAPES
from engram.training.reading import without
from tests.engram.nn.reading import random_engram, random_network, random_reads, slow_answers

BACKBONES = ("mlp", "cnn", "resnet18", "resnet50")


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("seed", range(2))
def test_answers_are_those_of_the_slow_reference(backbone: str, seed: int) -> None:
    network = random_network(backbone, owners=4, seed=seed, channels=1 + 2 * seed)
    images = torch.rand(5, network.layout.channels, *network.layout.image_size)
    assert len({network.closure(engram.task).owners for engram in network.stack}) == 4
    for task, expected in slow_answers(network, images).items():
        for found, wanted in zip(network.answer(task, images), expected, strict=True):
            scale = max(1.0, float(wanted.abs().max()))
            torch.testing.assert_close(found / scale, wanted / scale, rtol=0, atol=1e-5)
    for (features, logits), engram in zip(network(images), network.stack, strict=True):
        assert torch.equal(features, network.answer(engram.task, images)[0])
        assert torch.equal(logits, network.answer(engram.task, images)[1])


def _poisoned(network: Network, spared: dict[str, tuple[str, ...]]) -> Network:
    """A new network with NaN in every parameter and statistic but those of the spared nodes."""
    stack = []
    for engram in network.stack:
        other = copy.deepcopy(engram)
        for node in other.layout.nodes:
            if node.name not in spared.get(engram.task, ()):
                for value in other.block(node).state_dict().values():
                    value.fill_(torch.nan if value.is_floating_point() else -1)
        if engram.task != list(spared)[-1]:
            other.head.weight.fill_(torch.nan)
            other.head.bias.fill_(torch.nan)
        stack.append(other)
    return Network(network.layout, stack)


@torch.no_grad()
@pytest.mark.parametrize("backbone", BACKBONES[:3])
def test_poison_outside_a_closure_changes_no_byte(backbone: str) -> None:
    outside = 0
    for seed in range(2):
        network = random_network(backbone, owners=4, seed=seed)
        images = torch.rand(3, 1, *network.layout.image_size)
        for engram in network.stack:
            nodes = dict(network.closure(engram.task).nodes)
            outside += sum(len(network.layout.nodes) - len(nodes.get(other.task, ())) for other in network.stack)
            poisoned = _poisoned(network, nodes)
            for found, expected in zip(
                poisoned.answer(engram.task, images), network.answer(engram.task, images), strict=True
            ):
                assert torch.equal(found, expected)
    assert outside > 0


@torch.no_grad()
@pytest.mark.parametrize("backbone", ["mlp", "cnn", "resnet18"])
def test_poison_at_any_node_of_a_closure_is_noticed(backbone: str) -> None:
    """No node is in a closure for nothing: what is read reaches the answer."""
    network = random_network(backbone, owners=3, seed=1, width=0.05)
    task = network.stack[-1].task
    images = torch.rand(1, 1, *network.layout.image_size)
    nodes = dict(network.closure(task).nodes)
    for owner, names in nodes.items():
        for name in names:
            if network.layout.node(name).mixing:
                less = {**nodes, owner: tuple(one for one in names if one != name)}
                assert _poisoned(network, less).answer(task, images)[1].isnan().any(), (owner, name)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_later_tasks_change_no_byte_of_an_answer(backbone: str) -> None:
    network = random_network(backbone, owners=3)
    images = {shape: torch.rand(shape, 1, *network.layout.image_size) for shape in SHAPES}
    before = {
        (task.task, shape): network.answer(task.task, images[shape]) for task in network.stack for shape in SHAPES
    }
    longer, drawn = network, random.Random(7)
    for number in range(3, 6):
        reads = random_reads(network.layout, longer.stack, drawn)
        longer = longer.appended(random_engram(network.layout, f"task {number}", reads, network.layout.widths))
        longer.answer(f"task {number}", images[4])
    for fresh in (longer, Network(longer.layout, longer.stack)):
        for (task, shape), (features, logits) in before.items():
            assert torch.equal(fresh.answer(task, images[shape])[0], features)
            assert torch.equal(fresh.answer(task, images[shape])[1], logits)
        assert fresh.closure("task 2") == network.closure("task 2")


@torch.no_grad()
def test_a_head_that_is_rescaled_answers_so_at_once() -> None:
    network = random_network("mlp", owners=2)
    engram, images = network.stack[-1], torch.rand(3, 1, *network.layout.image_size)
    before = network.answer("task 1", images)[1]
    engram.head.weight.mul_(2)
    engram.head.bias.mul_(2)
    assert torch.equal(network.answer("task 1", images)[1], 2 * before)
    longer = network.appended(random_engram(network.layout, "next", (), engram.units))
    assert torch.equal(longer.answer("task 1", images)[1], 2 * before)


def test_a_network_of_the_closure_alone_answers_the_same() -> None:
    network = random_network("cnn", owners=5, seed=3)
    images = torch.rand(4, 1, *network.layout.image_size)
    for engram in network.stack:
        owners = network.closure(engram.task).owners
        some = [one for one in network.stack if one.task in owners]
        part = Network(network.layout, some, network.owned)
        assert torch.equal(part.answer(engram.task, images)[1], network.answer(engram.task, images)[1])
        assert part.owned == network.owned
        more = part.appended(random_engram(network.layout, "next", (), engram.units))
        assert more.owned == {layer: units + engram.units[layer] for layer, units in network.owned.items()}


@pytest.mark.parametrize("backbone", BACKBONES)
def test_multiply_adds_are_those_that_are_computed(backbone: str) -> None:
    """Counted where modules are called, by the sizes of their weights and outputs."""
    network = random_network(backbone, owners=4, seed=2)
    for engram in network.stack:
        closure, counted = network.closure(engram.task), dict[str, int]()
        for owner in network.stack:
            counted[owner.task] = 0
            for name in closure.nodes.get(owner.task, ()):
                node = owner.layout.node(name)
                if node.mixing:
                    weight = next(value for key, value in owner.block(node).state_dict().items() if "weight" in key)
                    height, width = node.size or (1, 1)
                    counted[owner.task] += weight.numel() * height * width
        counted[engram.task] += engram.head.weight.numel()
        assert closure.own == counted[engram.task]
        assert closure.alone == network.closure_with(without(engram, network.closure(engram.task).owners)).total
        assert closure.alone <= closure.own <= closure.total
        assert closure.total == sum(counted.values())
        assert closure.owners[-1] == engram.task


def test_an_engram_that_reads_nothing_is_its_own_closure() -> None:
    network = random_network("cnn", owners=3)
    lone = network.appended(random_engram(network.layout, "lone", (), network.layout.widths))
    closure = lone.closure("lone")
    assert closure.owners == ("lone",)
    assert closure.alone == closure.own == closure.total


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("side", [(6, 8), (7, 9), (3, 2)])
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_largest_values_are_found_in_any_order_of_memory(
    count: int, side: tuple[int, int], order: torch.memory_format
) -> None:
    values = torch.randn(count, 5, *side).relu_().contiguous(memory_format=order)
    node = Node("pool", "max_pool", ("conv",), "conv", size=None, kernel=2, stride=2)
    found = MaxPool(node)(values)
    assert torch.equal(found, torch.nn.functional.max_pool2d(values, 2, 2))


@torch.no_grad()
@pytest.mark.parametrize("backbone", BACKBONES)
def test_cutting_what_is_read_is_silencing_it(backbone: str) -> None:
    network = random_network(backbone, owners=2)
    reads = tuple(whole(engram.task, engram.units) for engram in network.stack)
    engram = random_engram(network.layout, "reader", reads, network.layout.widths)
    drawn = random.Random(1)
    keep = {layer: torch.arange(units) for layer, units in engram.units.items()}
    earlier = {
        layer: torch.tensor(sorted(drawn.sample(range(units), drawn.randint(0, units))), dtype=torch.int64)
        for layer, units in engram.earlier.items()
    }
    images = torch.rand(4, 1, *network.layout.image_size)
    joined = dict(network.joined(engram, images))
    for name, values in joined.items():
        node = network.layout.node(name)
        mask = torch.zeros(engram.earlier[node.layer])
        mask[earlier[node.layer]] = 1
        joined[name] = values * mask.repeat_interleave(node.per_unit).reshape(1, -1, *[1] * (values.ndim - 2))
    expected = engram.logits(engram(images, joined))
    narrow = engram.narrowed(keep, earlier)
    assert narrow.earlier == {layer: len(kept) for layer, kept in earlier.items()}
    found = narrow.logits(narrow(images, network.joined(narrow, images)))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    answered = network.appended(narrow.freeze()).answer("reader", images)[1]
    torch.testing.assert_close(answered, expected, rtol=1e-5, atol=1e-5)


def test_what_is_read_is_what_the_full_prefix_holds() -> None:
    """Reading every unit of every owner is the same network as reading everything before."""
    layout = random_network("cnn").layout
    torch.manual_seed(0)
    everything, chosen = Network(layout), Network(layout)
    for number in range(3):
        torch.manual_seed(number)
        engram = Engram(layout, f"task {number}", ("a", "b"), everything.owned, layout.widths).freeze()
        reads = [whole(earlier.task, earlier.units) for earlier in chosen.stack]
        other = Engram.reading(layout, engram.task, engram.classes, reads, engram.units)
        other.load_state_dict(engram.state_dict())
        everything, chosen = everything.appended(engram), chosen.appended(other.freeze())
    images = torch.rand(3, 1, *layout.image_size)
    with torch.no_grad():
        for (_, wanted), (_, found) in zip(everything(images), chosen(images), strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_what_is_not_there_cannot_be_read() -> None:
    network = random_network("mlp", owners=2)
    reads = [Read("nobody", {network.layout.layers[0]: torch.tensor([0])})]
    engram = random_engram(network.layout, "reader", reads, network.layout.widths)
    with pytest.raises(AssertionError, match="has to be there"):
        network.appended(engram)
    with pytest.raises(AssertionError, match="nobody"):
        network.closure_with(engram)
    assert IMAGE not in network.closure("task 1").nodes["task 1"]
