"""Tests of multi-head networks: scaled updates, weights kept at zero, owners of units, bytes."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from engram.certificate import probe_batch
from engram.checkpointing.progress import Reporter
from engram.checkpointing.tensors import pack
from engram.context import LearnContext
from engram.errors import DamagedSnapshot
from engram.explain.unit_relevance import relevances
from engram.nn.backbones import layout_of
from engram.nn.blocks import ConvBlock, DenseBlock
from engram.nn.capacity import budget_of
from engram.nn.elastic import ElasticNorm, hold, weight_of
from engram.nn.layout import IMAGE, Layout
from engram.nn.multihead import MultiHeadNetwork, blocked_by, claimed, renewed, resist, silenced
from engram.nn.network import Engram, pixels
from engram.nn.serialization import dump_multihead, load_multihead
from engram.training.optimisers import ElasticOptimisers
from engram.training.trainer import Trainer, TrainingPhase
from testing.data.patterns import QUICK, bars, context, definition

BACKBONES = ("mlp", "cnn", "resnet18")
OPTIMISERS = ("sgd", "adam", "adamw")


def make(kind: str, parameters: Iterable[nn.Parameter]) -> Optimizer:
    match kind:
        case "sgd":
            return SGD(parameters, lr=1e-2, momentum=0.9, weight_decay=0.1)
        case "adam":
            return Adam(parameters, lr=1e-2, weight_decay=0.1)
        case _:
            return AdamW(parameters, lr=1e-2, weight_decay=0.1)


def half(network: MultiHeadNetwork, task: int = 1) -> dict[str, Tensor]:
    """Owners after a task has claimed every second of the free units."""
    kept = {layer: torch.arange(len(owner)) % (2 * task) < task for layer, owner in network.owners.items()}
    return claimed(network.owners, kept, task)


def network(backbone: str) -> MultiHeadNetwork:
    made = definition(backbone, budget=1.5)
    layout = layout_of(made)
    return MultiHeadNetwork.create(layout, budget_of(layout, made.budget), 7)


def made_as(kind: str) -> LearnContext:
    """A context whose optimisers are of one kind."""
    return context(optimiser=lambda given: make(kind, given))


def trained(shared: MultiHeadNetwork, task: int, elasticity: float, *, resistance: bool, kind: str = "adamw") -> Engram:
    candidate = shared.candidate(f"task {task}", bars(task).classes, task)
    rates = shared.rates(elasticity)
    hold(candidate, rates)
    blocked = blocked_by(shared.layout, shared.owners) if resistance else None
    elastic = ElasticOptimisers(made_as(kind), candidate, rates, blocked)
    examples = bars(task)
    options = QUICK.model_copy(update={"learning_rate": 2e-2})
    trainer = Trainer.alone(shared.layout, examples, examples, context(options, task, elastic))
    trainer.fit(candidate, TrainingPhase("training", (0.0, 1.0), 2, 2e-2, 2))
    return candidate


def after_one(backbone: str, *, resistance: bool) -> MultiHeadNetwork:
    shared = network(backbone)
    candidate = trained(shared, 1, 0.0, resistance=resistance)
    owners = half(shared)
    if resistance:
        resist(candidate, owners)
    return shared.accepted(candidate, owners)


def logits(shared: MultiHeadNetwork, number: int = 0) -> Tensor:
    probes = pixels(probe_batch(definition("mlp").input))
    with torch.no_grad():
        heads: list[Tensor] = shared(probes)[1]
    return heads[number]


@pytest.mark.parametrize("kind", OPTIMISERS)
@pytest.mark.parametrize("elasticity", [0.0, 0.25])
def test_updates_are_scaled_as_by_hand(kind: str, elasticity: float) -> None:
    shared = after_one("cnn", resistance=False)
    elastic, by_hand = (shared.candidate("b", ("x", "y"), 3) for _ in range(2))
    rates = shared.rates(elasticity)
    scaled = ElasticOptimisers(made_as(kind), elastic, rates)(list(elastic.parameters()))
    ordinary = make(kind, list(by_hand.parameters()))
    images = torch.rand(8, 1, 12, 12, generator=torch.Generator().manual_seed(1))
    for _ in range(3):
        old = {name: value.detach().clone() for name, value in by_hand.named_parameters()}
        for engram, optimiser in ((elastic, scaled), (by_hand, ordinary)):
            engram.eval()
            optimiser.zero_grad()
            loss = engram.logits(engram(images, {})).square().sum()
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            optimiser.step()
        with torch.no_grad():
            for name, value in by_hand.named_parameters():
                if name.startswith("head."):
                    continue
                node = shared.layout.node(name.split(".")[1])
                for unit in range(len(value)):
                    rate = float(rates[node.layer][unit])
                    value[unit] = old[name][unit] + rate * (value[unit] - old[name][unit])
    moved = 0.0
    for (name, ours), theirs in zip(elastic.named_parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6, msg=name)
        moved += float((ours.detach() - dict(shared.engram(0).named_parameters())[name]).abs().sum())
    assert moved > 0, "nothing was trained"


def state_of(engram: Engram, units: dict[str, Tensor]) -> dict[str, Tensor]:
    """Everything that these units are, by name."""
    found = {}
    for node in engram.layout.nodes:
        for name, value in engram.block(node).state_dict().items():
            if value.ndim:
                found[f"{node.name}.{name}"] = value[units[node.layer]].clone()
    return found


@pytest.mark.parametrize(("backbone", "kind"), [("mlp", "adam"), ("cnn", "adamw"), ("resnet18", "sgd")])
def test_owned_units_keep_their_bytes_and_free_ones_move(backbone: str, kind: str) -> None:
    shared = after_one(backbone, resistance=False)
    candidate = trained(shared, 2, 0.0, resistance=False, kind=kind)
    owned = {layer: owner > 0 for layer, owner in shared.owners.items()}
    free = {layer: owner == 0 for layer, owner in shared.owners.items()}
    before, after = state_of(shared.engram(0), owned), state_of(candidate, owned)
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    before, after = state_of(shared.engram(0), free), state_of(candidate, free)
    assert not any(torch.equal(value, after[name]) for name, value in before.items() if "weight" in name)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_with_resistance_old_logits_stay_the_same_bytes(backbone: str) -> None:
    shared = after_one(backbone, resistance=True)
    first = logits(shared)
    candidate = trained(shared, 2, 0.0, resistance=True)
    owners = half(shared, 2)
    resist(candidate, owners)
    second = shared.accepted(candidate, owners)
    assert torch.equal(logits(second), first)
    third = second.accepted(trained(second, 3, 0.0, resistance=True), half(second, 3))
    assert torch.equal(logits(third), first)
    assert torch.equal(logits(third, 1), logits(second, 1))


def test_without_resistance_old_logits_change() -> None:
    shared = after_one("mlp", resistance=False)
    later = shared.accepted(trained(shared, 2, 0.0, resistance=False), half(shared, 2))
    assert not torch.equal(logits(later), logits(shared))


def test_blocked_weights_stay_zero_even_where_units_may_move() -> None:
    shared = after_one("cnn", resistance=True)
    candidate = trained(shared, 2, 0.5, resistance=True)
    blocked = blocked_by(shared.layout, shared.owners)
    for name, mask in blocked.items():
        block = candidate.blocks[name]
        assert isinstance(block, DenseBlock | ConvBlock)
        assert not weight_of(block)[mask.expand(weight_of(block).shape[:2])].any()
    assert any(bool(mask.any()) for mask in blocked.values())


def slow_blocked(layout: Layout, owners: dict[str, Tensor], name: str, reader: int, read: int) -> bool:
    node = layout.node(name)
    if node.sources == (IMAGE,):
        return False
    origin = layout.node(node.sources[0])
    mine, theirs = int(owners[node.layer][reader]), int(owners[origin.layer][read // origin.per_unit])
    return mine > 0 and (theirs == 0 or theirs > mine)


def test_what_is_blocked_is_what_later_units_would_say_to_earlier_ones() -> None:
    shared = network("cnn")
    generator = torch.Generator().manual_seed(3)
    owners = {layer: torch.randint(0, 4, owner.shape, generator=generator) for layer, owner in shared.owners.items()}
    for name, mask in blocked_by(shared.layout, owners).items():
        for reader in range(mask.shape[0]):
            for read in range(mask.shape[1]):
                assert bool(mask[reader, read]) == slow_blocked(shared.layout, owners, name, reader, read)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_silencing_is_reading_zeros(backbone: str) -> None:
    shared = after_one(backbone, resistance=False)
    engram = shared.engram(0)
    kept = {layer: torch.arange(units) % 3 > 0 for layer, units in shared.units.items()}
    images = pixels(bars(1).images)

    def mask(layer: str) -> Tensor:
        return kept[layer].float()

    with torch.no_grad():
        quiet = silenced(engram, kept)
        ours = quiet.logits(quiet(images, {}))
        values: dict[str, Tensor] = {IMAGE: images}
        for node in shared.layout.nodes:  # every node in turn, reading what is silenced by hand
            block = engram.block(node)
            given = [values[source] for source in node.sources]
            if node.mixing and node.sources != (IMAGE,):
                origin = shared.layout.node(node.sources[0])
                silent = mask(origin.layer).repeat_interleave(origin.per_unit)
                given = [given[0] * silent.reshape(-1, *[1] * (given[0].ndim - 2))]
            values[node.name] = block(*given)
        origin = shared.layout.features
        theirs = engram.head(values[origin.name] * mask(origin.layer).repeat_interleave(origin.per_unit))
    torch.testing.assert_close(ours, theirs)
    assert not torch.allclose(ours, engram.logits(engram(images, {})))


def test_held_channels_use_stored_statistics_and_follow_by_elasticity() -> None:
    norm = ElasticNorm(3)
    norm.elasticity.copy_(torch.tensor([0.0, 0.5, 1.0]))
    norm.running_mean = torch.tensor([1.0, 2.0, 3.0])
    norm.running_var = torch.tensor([4.0, 5.0, 6.0])
    norm.momentum = 0.1
    given = torch.randn(6, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    out = norm.train()(given)
    values = given.transpose(0, 1).flatten(1)  # (3, 96)
    for channel, (mean, variance, rate) in enumerate([(1.0, 4.0, 0.0), (2.0, 5.0, 0.5), (3.0, 6.0, 1.0)]):
        batch = values[channel]
        used = (mean, variance) if rate < 1 else (float(batch.mean()), float(batch.var(unbiased=False)))
        expected = (given[:, channel] - used[0]) / (used[1] + norm.eps) ** 0.5
        torch.testing.assert_close(out[:, channel], expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(float(norm.running_mean[channel]), mean + 0.1 * rate * (float(batch.mean()) - mean))
        torch.testing.assert_close(
            float(norm.running_var[channel]), variance + 0.1 * rate * (float(batch.var()) - variance)
        )
    ordinary = nn.BatchNorm2d(3).train()
    free = ElasticNorm(3).train()
    assert torch.equal(free(given), ordinary(given))
    torch.testing.assert_close(free.running_var, ordinary.running_var)


def test_relevance_of_a_plain_dense_network_is_the_epsilon_rule_by_hand() -> None:
    shared = after_one("mlp", resistance=False)
    engram, examples = shared.engram(0), bars(1, count=3)
    (found,) = relevances(engram, examples, Reporter(), torch.device("cpu"))
    first, second = (weight_of(engram.blocks[name]) for name in ("dense1", "dense2"))
    for number in range(len(examples)):
        watch: dict[str, Tensor] = {}
        with torch.no_grad():
            engram(pixels(examples.images[[number]]), {}, watch)
        one, two = watch["dense1"][0], watch["dense2"][0]
        row = engram.head.weight[examples.labels[number]]
        logit = float(two @ row + engram.head.bias[examples.labels[number]])
        of_two = two * row / float(two @ row) * logit
        of_one = torch.zeros_like(one)
        for unit in range(len(two)):
            total = float(one @ second[unit])
            if float(of_two[unit]) != 0:
                of_one += one * second[unit] / total * of_two[unit]
        torch.testing.assert_close(found["dense2"][number], of_two.detach(), rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(found["dense1"][number], of_one.detach(), rtol=1e-2, atol=1e-3)
    assert first.shape[0] == found["dense1"].shape[1]


@pytest.mark.parametrize("backbone", ["mlp", "cnn"])
def test_the_last_layer_shares_out_the_logit(backbone: str) -> None:
    shared = after_one(backbone, resistance=False)
    engram, examples = shared.engram(0), bars(1, count=3)
    (found,) = relevances(engram, examples, Reporter(), torch.device("cpu"))
    with torch.no_grad():
        true = engram.logits(engram(pixels(examples.images), {})).gather(1, examples.labels[:, None])[:, 0]
    together = found[shared.layout.features.layer].sum(1)
    torch.testing.assert_close(together, true, rtol=1e-3, atol=1e-3)


def test_units_that_are_freed_start_anew_and_others_stay() -> None:
    shared = after_one("cnn", resistance=False)
    candidate = shared.candidate("b", ("x", "y"), 1)
    units = {layer: owner == 0 for layer, owner in shared.owners.items()}
    renewed(candidate, units, 5)
    others = {layer: ~chosen for layer, chosen in units.items()}
    before, after = state_of(shared.engram(0), others), state_of(candidate, others)
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    fresh = state_of(candidate, units)
    assert not torch.equal(fresh["conv1.conv.weight"], state_of(shared.engram(0), units)["conv1.conv.weight"])
    assert not fresh["conv1.norm.running_mean"].any()
    assert not fresh["dense.linear.bias"].any()


@pytest.mark.parametrize("backbone", BACKBONES)
def test_files_give_the_same_network_and_the_same_bytes(backbone: str) -> None:
    shared = after_one(backbone, resistance=True)
    pieces = dump_multihead(shared)
    again = load_multihead(shared.layout, pieces)
    assert torch.equal(logits(again), logits(shared))
    assert dump_multihead(again) == pieces
    assert again.tasks() == shared.tasks()
    candidates = [trained(each, 2, 0.0, resistance=True) for each in (shared, again)]
    assert all(torch.equal(a, b) for a, b in zip(*(each.parameters() for each in candidates), strict=True))


def test_files_of_another_network_are_refused() -> None:
    shared = after_one("mlp", resistance=False)
    blocks, head = dump_multihead(shared)
    with pytest.raises(DamagedSnapshot):
        load_multihead(network("cnn").layout, (blocks, head))
    with pytest.raises(DamagedSnapshot, match="belong to tasks"):
        load_multihead(shared.layout, (blocks,))
    with pytest.raises(DamagedSnapshot):
        load_multihead(shared.layout, (blocks, pack("head", {"task": "a"}, {})))
    with pytest.raises(DamagedSnapshot):
        load_multihead(shared.layout, ())


def test_a_first_task_is_learned_by_the_optimiser_alone() -> None:
    shared = network("mlp")
    candidate = shared.candidate("a", ("x", "y"), 1)
    elastic = ElasticOptimisers(context(), candidate, shared.rates(0.0))
    optimiser = elastic(list(candidate.parameters()))
    assert not optimiser._optimizer_step_post_hooks
    assert all(parameter.requires_grad for parameter in candidate.parameters())
