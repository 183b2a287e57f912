"""Tests of ReReLRP as published: frozen units, cut-out sub-networks, and their relevance."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor, nn

from engram import Definition, Memory
from engram.checkpointing.tensors import pack
from engram.errors import CapacityExhausted, DamagedSnapshot, InvalidDefinition
from engram.explain.unit_relevance import AT_ONCE, UnitRelevance
from engram.memory import dump, restore
from engram.methods.rerelrp.frozen_subnetworks import FrozenSubnetworks
from engram.methods.rerelrp.method import Rerelrp
from engram.nn.blocks import DenseBlock
from engram.nn.network import Engram, pixels
from engram.snapshot import Parts
from testing.data.patterns import QUICK, bars, definition

SETTINGS = {"preset": "paper", "trees": 8, "exemplars": 24, "features": 10}
OPTIONS = QUICK.model_copy(update={"epochs": 6, "patience": 6, "learning_rate": 1e-2})


def _definition(backbone: str, budget: float = 4.0) -> Definition:
    return definition(backbone, method="rerelrp", settings=SETTINGS, budget=budget)


@cache
def _parts(backbone: str) -> Parts:
    large = backbone == "resnet18"
    memory = Memory.create(_definition(backbone, 1.5 if large else 4.0))
    for task in range(2):
        memory.learn(f"task {task}", bars(task), QUICK if large else OPTIONS)
    return dump(memory)


def _memory(backbone: str) -> Memory:
    parts = _parts(backbone)
    return restore(parts.definition, parts.engrams, parts.recogniser, parts.kept, parts.budget)


def _subnetworks(memory: Memory) -> FrozenSubnetworks:
    assert isinstance(memory.method, Rerelrp)
    assert isinstance(memory.method.subnetworks, FrozenSubnetworks)
    return memory.method.subnetworks


def _shared(memory: Memory) -> dict[str, Tensor]:
    shared = _subnetworks(memory).shared
    assert shared is not None, "the model was restored with all it has kept"
    return {name: value.clone() for name, value in shared.blocks.state_dict().items()}


@pytest.mark.parametrize("backbone", ["mlp", "cnn", pytest.param("resnet18", marks=pytest.mark.slow)])
def test_what_frozen_units_compute_never_changes_and_free_units_are_drawn_anew(backbone: str) -> None:
    memory = _memory(backbone)
    before, owners = _shared(memory), dict(_subnetworks(memory).owners)
    assert any(bool((owner == 0).any()) for owner in owners.values()), "free units, or this proves nothing"
    memory.learn("task 2", bars(2), QUICK)
    after, moved = _shared(memory), 0
    for name, value in before.items():
        layer = _subnetworks(memory).shared.layout.node(name.split(".")[0]).layer  # type: ignore[union-attr]
        if value.ndim:
            frozen = owners[layer] > 0
            assert torch.equal(after[name][frozen], value[frozen]), f"{name} of frozen units moved"
            moved += int(not torch.equal(after[name][~frozen], value[~frozen]))
    assert moved, "free units were to move, or this proves nothing"
    for layer, owner in _subnetworks(memory).owners.items():
        assert torch.equal(owner[owners[layer] > 0], owners[layer][owners[layer] > 0])


def test_what_was_pruned_acts_on_nothing_that_was_frozen() -> None:
    memory = Memory.create(_definition("mlp"))
    memory.learn("task 0", bars(0), OPTIONS)
    owners, shared = _subnetworks(memory).owners, _shared(memory)
    kept = {layer: owner > 0 for layer, owner in owners.items()}
    weight = shared["dense2.linear.weight"]
    assert not weight[kept["dense2"]][:, ~kept["dense1"]].any()
    (engram,) = _subnetworks(memory).engrams
    block = engram.block(engram.layout.node("dense2"))
    assert isinstance(block, DenseBlock)
    assert torch.equal(block.linear.weight, weight[kept["dense2"]][:, kept["dense1"]])


def _relevance_slowly(engram: Engram, image: Tensor) -> list[Tensor]:
    """LRP by the epsilon rule through dense layers, unit by unit, for one image."""
    blocks = [engram.block(node) for node in engram.layout.nodes]
    values = [image.flatten().double()]
    for block in blocks:
        assert isinstance(block, DenseBlock)
        values.append((block.linear.weight.double() @ values[-1] + block.linear.bias.double()).relu())
    head = engram.head
    logits = head.weight.double() @ values[-1] + head.bias.double()
    relevance = torch.zeros_like(logits)
    relevance[logits.argmax()] = logits.max()
    layers: list[Tensor] = []
    linears: list[nn.Linear] = [head, *(block.linear for block in blocks[:0:-1] if isinstance(block, DenseBlock))]
    for linear, read in zip(linears, values[:0:-1], strict=True):
        below = torch.zeros_like(read)
        for unit, weights in enumerate(linear.weight.double()):
            parts = weights * read
            if float(parts.sum()):
                below += parts / parts.sum() * relevance[unit]
        relevance = below
        layers.insert(0, relevance / relevance.abs().sum())
    return layers


def test_unit_relevance_is_that_of_loops() -> None:
    for engram in _subnetworks(_memory("mlp")).engrams:
        images = pixels(bars(0, count=3).images)
        found = UnitRelevance(engram)(images)
        for row, image in enumerate(images):
            expected = torch.cat(_relevance_slowly(engram, image)).float()
            torch.testing.assert_close(found[row], expected, atol=2e-3, rtol=1e-2)


def test_relevance_of_each_layer_sums_to_one_and_does_not_depend_on_the_batch() -> None:
    (engram, _) = _subnetworks(_memory("cnn")).engrams
    images, relevance = pixels(bars(1, count=70).images), UnitRelevance(engram)
    assert len(images) > AT_ONCE, "more than are propagated together, or this proves less"
    whole = relevance(images)
    assert whole.shape == (140, sum(engram.units.values()))
    torch.testing.assert_close(whole.abs().sum(1), torch.full((140,), float(len(engram.units))))
    for row in (0, AT_ONCE - 1, AT_ONCE, 139):
        torch.testing.assert_close(relevance(images[row : row + 1])[0], whole[row], atol=1e-5, rtol=1e-3)


def test_a_pass_for_each_task_and_one_of_relevance_for_each_but_the_newest_are_counted() -> None:
    memory = Memory.create(_definition("mlp"))
    for task, expected in enumerate((1, 3, 5)):
        memory.learn(f"task {task}", bars(task), OPTIONS)
        assert memory.observe(bars(0).images[:2]).passes == expected
    blocks = Memory.create(definition("mlp", method="rerelrp", settings={"trees": 8, "exemplars": 24}))
    for task in range(2):
        blocks.learn(f"task {task}", bars(task), QUICK)
    assert blocks.observe(bars(0).images[:2]).passes == 1


def test_a_full_network_takes_no_more_tasks_and_cannot_be_widened() -> None:
    memory = Memory.create(_definition("mlp", budget=1.0))
    memory.learn("task 0", bars(0), OPTIONS.model_copy(update={"prune": False}))
    assert [layer.free for layer in memory.capacity()] == [0, 0]
    with pytest.raises(CapacityExhausted):
        memory.learn("task 1", bars(1), OPTIONS)
    with pytest.raises(InvalidDefinition):
        memory.raise_budget(3.0)


def test_the_further_accuracy_may_fall_the_fewer_units_are_kept() -> None:
    kept = []
    for tolerance, prune in ((0.0, False), (0.05, True), (1.0, True)):
        memory = Memory.create(_definition("mlp"))
        changes = {"tolerance": tolerance, "prune": prune, "floor": 0.1}
        report = memory.learn("task 0", bars(0), OPTIONS.model_copy(update=changes))
        kept.append(sum(report.units.values()))
        if tolerance < 1:
            assert report.accuracy["kept"] > 0.9
    free = sum(layer.units for layer in memory.capacity())
    assert kept[0] == free
    assert kept[0] > kept[1] >= kept[2]
    assert kept[2] <= 0.2 * free, "all but each layer's floor, rounded up to eights"


def test_recovery_moves_what_is_kept_and_not_what_was_frozen_before() -> None:
    models = [_memory("mlp"), _memory("mlp")]
    before, owners = _shared(models[0]), dict(_subnetworks(models[0]).owners)
    for memory, epochs in zip(models, (0, 2), strict=True):
        memory.learn("task 2", bars(2), OPTIONS.model_copy(update={"recovery_epochs": epochs, "rounds": 1}))
    plain, recovered = (_subnetworks(memory) for memory in models)
    assert all(torch.equal(plain.owners[layer], recovered.owners[layer]) for layer in owners), "the same steps"
    new = plain.owners["dense2"] == 3
    frozen = owners["dense2"] > 0
    weight = "dense2.linear.weight"
    assert new.any()
    assert not torch.equal(_shared(models[0])[weight][new], _shared(models[1])[weight][new])
    for memory in models:
        assert torch.equal(_shared(memory)[weight][frozen], before[weight][frozen])


def test_two_versions_share_the_sub_networks_that_they_have_in_common() -> None:
    older, parts = _memory("mlp"), _parts("mlp")
    newer = restore(parts.definition, parts.engrams, parts.recogniser, None, parts.budget, older)
    pairs = zip(_subnetworks(older).engrams, _subnetworks(newer).engrams, strict=True)
    assert all(one is other for one, other in pairs)
    images = bars(0).images[:4]
    assert torch.equal(older.observe(images).log_tasks, newer.observe(images).log_tasks)


def test_parts_that_do_not_fit_are_refused() -> None:
    parts = _parts("mlp")
    other = pack("owners", {}, {"dense1": torch.zeros(3, dtype=torch.int64)})
    for engrams, kept in (
        ((other, *parts.engrams[1:]), parts.kept),
        (parts.engrams[:-1], parts.kept),
        (parts.engrams, parts.kept[:-1]),
        (parts.engrams, (parts.kept[1], parts.kept[0], *parts.kept[2:])),
        (parts.engrams, (*parts.kept[:-1], pack("shared network", {}, {}))),
    ):
        with pytest.raises(DamagedSnapshot):
            restore(parts.definition, engrams, parts.recogniser, kept, parts.budget)
