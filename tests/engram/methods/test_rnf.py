"""Tests of Relevance-based Neural Freezing: chosen units, frozen weights, and forgetting."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from engram import LearnOptions, Memory
from engram.certificate import certify, compare, probe_batch
from engram.checkpointing.progress import Reporter
from engram.errors import DamagedSnapshot, InvalidDefinition
from engram.memory import dump, restore
from engram.methods.rnf.importance import importance, relevant
from engram.methods.rnf.method import Rnf
from engram.nn.blocks import ConvBlock, DenseBlock
from engram.nn.elastic import weight_of
from engram.nn.multihead import MultiHeadNetwork, silenced
from engram.nn.network import Engram, Network
from engram.training.importance import Scores
from engram.training.measuring import measure
from engram.training.pruning import choose
from testing.data.patterns import QUICK, bars, definition

LONGER = QUICK.model_copy(update={"epochs": 6, "patience": 6, "learning_rate": 1e-2})
CPU = torch.device("cpu")


def made(
    backbone: str = "mlp", tasks: int = 1, options: LearnOptions = LONGER, seed: int = 0, **settings: object
) -> Memory:
    memory = Memory.create(definition(backbone, budget=3.0, method="rnf", settings=settings, seed=seed))
    for task in range(tasks):
        memory.learn(f"task {task}", bars(task), options)
    return memory


def rnf(memory: Memory) -> Rnf:
    assert isinstance(memory.method, Rnf)
    return memory.method


def network_of(memory: Memory) -> MultiHeadNetwork:
    return rnf(memory).network


def logits(memory: Memory, task: str) -> Tensor:
    return memory.observe(probe_batch(memory.definition.input)).logits(task)


def test_the_fewest_units_that_hold_are_those_that_trying_every_number_finds() -> None:
    engram = network_of(made(preset="paper")).engram(0)
    generator = torch.Generator().manual_seed(0)
    scores: Scores = {layer: torch.rand(units, generator=generator) for layer, units in engram.units.items()}
    never = {layer: torch.zeros(units, dtype=torch.bool) for layer, units in engram.units.items()}

    def heard(candidate: Engram) -> float:
        """Some measure that falls as units are taken away: the share of units that the head still reads."""
        return float((candidate.head.weight != 0).any(0).float().mean())

    for least in (0.1, 0.4, 0.8):
        kept = relevant(engram, scores, never, 0.05, least, heard)
        slow = None
        for number in range(1, 256):
            chosen = choose(scores, number / 256, 0.05)
            masks = {
                layer: torch.isin(torch.arange(units), chosen[layer]) for layer, units in sorted(engram.units.items())
            }
            if heard(silenced(engram, masks)) >= least:
                slow = masks
                break
        assert slow is not None
        assert all(torch.equal(kept[layer], slow[layer]) for layer in slow)


def test_units_that_must_stay_stay_and_an_impossible_demand_keeps_all() -> None:
    engram = network_of(made()).engram(0)
    scores: Scores = {layer: torch.ones(units) for layer, units in engram.units.items()}
    always = {layer: torch.arange(units) % 7 == 0 for layer, units in engram.units.items()}
    kept = relevant(engram, scores, always, 0.05, 0.0, lambda _: 1.0)
    assert all(bool(kept[layer][always[layer]].all()) for layer in kept)
    kept = relevant(engram, scores, always, 0.05, 2.0, lambda _: 1.0)
    assert all(bool(kept[layer].all()) for layer in kept)


@pytest.mark.parametrize("backbone", ["mlp", "cnn"])
def test_a_task_misses_what_is_relevant_to_it_and_nothing_else(backbone: str) -> None:
    memory = made(backbone, options=LONGER, preset="paper")
    engram, examples = network_of(memory).engram(0), bars(0)
    scores = importance(engram, examples, Reporter(), CPU)
    assert all(bool((score >= 0).all()) for score in scores.values())

    def without(order: bool) -> float:
        masks = {}
        for layer, score in scores.items():
            ranks = score.argsort(descending=order)
            masks[layer] = torch.ones_like(score, dtype=torch.bool)
            masks[layer][ranks[: len(score) // 2]] = False
        return measure(Network(engram.layout), silenced(engram, masks), examples).accuracy

    assert without(order=False) > 0.9
    assert without(order=True) < 0.75


def test_the_tolerance_is_the_tasks_unless_the_settings_have_one() -> None:
    # From the first weights of this seed the fewest units do not answer everything right.
    careful = made(options=LONGER.model_copy(update={"tolerance": 0.0}), seed=1)
    careless = made(options=LONGER.model_copy(update={"tolerance": 1.0}), seed=1)
    settled = made(options=LONGER.model_copy(update={"tolerance": 0.0}), seed=1, tolerance=1.0)
    units = [sum(memory.tasks[0].units.values()) for memory in (careful, careless, settled)]
    assert units[0] > units[1]
    assert units[1] == units[2]


def test_published_freezing_puts_back_what_was_taken_and_resistance_does_not() -> None:
    for resistance in (False, True):
        network = network_of(made(resistance=resistance))
        block = network.blocks["dense2"]
        weight = weight_of(block)
        reader, read = network.owners["dense2"] > 0, network.owners["dense1"] == 0
        assert bool(reader.any())
        assert bool(read.any())
        assert bool(weight[reader][:, read].any()) != resistance
        assert bool(network.stack[0].weight[:, ~reader].any()) != resistance


def owned_weights(memory: Memory) -> list[Tensor]:
    """The first layer of what task 0 owns."""
    network = network_of(memory)
    return [weight_of(network.blocks["dense1"])[network.owners["dense1"] == 1]]


def test_elasticity_decides_how_far_units_move_and_how_much_is_forgotten() -> None:
    moved, drifted = [], []
    for elasticity, resistance in ((0.0, True), (0.0, False), (0.1, False), (1.0, False)):
        memory = made(elasticity=elasticity, resistance=resistance)
        before, answered = owned_weights(memory), logits(memory, "task 0")
        memory.learn("task 1", bars(1), LONGER)
        after = owned_weights(memory)
        moved.append(sum(float((a - b).abs().sum()) for a, b in zip(after, before, strict=True)))
        drifted.append(float((logits(memory, "task 0") - answered).abs().mean()))
    assert moved[0] == moved[1] == 0
    assert 0 < moved[2] < moved[3]
    assert drifted[0] == 0
    assert 0 < drifted[1] < drifted[3]
    assert drifted[2] < drifted[3]


def test_only_hard_freezing_with_resistance_is_exact() -> None:
    assert made(tasks=0).exact
    assert not made(tasks=0, preset="paper").exact
    assert not made(tasks=0, elasticity=0.1).exact
    memory = made("cnn", tasks=1)
    before = certify(memory)
    heatmap = memory.explain(bars(0).images[0], task="task 0").relevance
    for task in (1, 2):
        memory.learn(f"task {task}", bars(task), LONGER)
    assert compare(before, certify(memory)) == []
    assert torch.equal(memory.explain(bars(0).images[0], task="task 0").relevance, heatmap)


def test_a_network_without_free_units_goes_on_with_what_it_has() -> None:
    memory = made(options=LONGER.model_copy(update={"prune": False}))
    assert all(layer.free == 0 for layer in memory.capacity())
    blocks = {name: value.clone() for name, value in network_of(memory).blocks.state_dict().items()}
    report = memory.learn("task 1", bars(1), LONGER)
    assert report.accuracy["kept"] > 0.8
    assert set(report.units.values()) == {0}
    assert all(torch.equal(value, blocks[name]) for name, value in network_of(memory).blocks.state_dict().items())


def test_what_resistance_takes_away_is_recovered_by_the_tasks_own_units() -> None:
    options = LONGER.model_copy(update={"tolerance": 0.3, "learning_rate": 5e-3})
    losses = []
    for epochs in (0, 6):
        memory = made(tasks=1, options=options)
        first = logits(memory, "task 0")
        memory.learn("task 1", bars(1, count=200), options.model_copy(update={"recovery_epochs": epochs}))
        network = network_of(memory)
        free = network.owners["dense2"] == 0
        assert bool(free.any())
        assert not network.stack[1].weight[:, free].any()
        assert torch.equal(logits(memory, "task 0"), first)
        losses.append(measure(Network(network.layout), network.engram(1), bars(1)).loss)
    assert losses[1] < losses[0]


def test_what_is_stored_once_is_stored_once() -> None:
    memory = made()
    first = dump(memory)
    memory.learn("task 1", bars(1), LONGER)
    second = dump(memory)
    assert second.engrams[0] == first.engrams[0], "the commons"
    assert second.engrams[2] == first.engrams[2], "the head of task 0"
    assert second.kept[0] == first.kept[0]
    assert memory.observe(bars(0).images[:3]).passes == 1


def test_a_network_of_another_width_and_a_wider_budget_are_refused() -> None:
    memory = made()
    parts = dump(memory)
    wider = {layer: units + 1 for layer, units in parts.budget.items()}
    with pytest.raises(DamagedSnapshot, match="wide"):
        restore(parts.definition, parts.engrams, parts.recogniser, parts.kept, wider)
    with pytest.raises(InvalidDefinition, match="rnf"):
        memory.raise_budget(9.0)


@pytest.mark.parametrize("backbone", ["mlp", "cnn"])
def test_initial_weights_are_drawn_as_the_setting_says(backbone: str) -> None:
    drawn = {
        initial: [
            weight_of(block)
            for block in network_of(made(backbone, tasks=0, initial_weights=initial)).blocks.values()
            if isinstance(block, DenseBlock | ConvBlock)
        ]
        for initial in ("he", "uniform")
    }
    assert drawn["he"], "something was drawn"
    for normal, uniform in zip(drawn["he"], drawn["uniform"], strict=True):
        bound = uniform[0].numel() ** -0.5
        assert 0.9 * bound < float(uniform.abs().max()) <= bound
        assert not torch.equal(normal, uniform)


def test_no_other_way_of_drawing_weights_is_taken() -> None:
    with pytest.raises(ValueError, match="initial_weights"):
        made(tasks=0, initial_weights="zeros")
