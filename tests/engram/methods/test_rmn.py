"""Tests of relevance mapping networks: maps as bits, fixed shared weights, the map regulariser."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from engram import Examples, LearnOptions, Memory
from engram.certificate import certify, compare, probe_batch
from engram.checkpointing.pieces import bytes_of
from engram.config.rmn import RmnSettings
from engram.errors import DamagedSnapshot, InvalidDefinition
from engram.memory import dump, restore
from engram.methods.rmn.map_learning import MapCandidate, MapRegulariser
from engram.methods.rmn.maps import HEAD, SharedNetwork, packed, unpacked
from engram.methods.rmn.method import Rmn
from engram.nn.network import pixels
from testing.data.patterns import QUICK, SIZE, bars, context, definition

LONGER = QUICK.model_copy(update={"epochs": 8, "patience": 8, "learning_rate": 1e-2})


def made(backbone: str = "mlp", tasks: int = 2, options: LearnOptions = QUICK, **settings: object) -> Memory:
    memory = Memory.create(definition(backbone, budget=3.0, method="rmn", settings={"room": 1.0, **settings}))
    for task in range(tasks):
        memory.learn(f"task {task}", bars(task), options)
    return memory


def rmn(memory: Memory) -> Rmn:
    assert isinstance(memory.method, Rmn)
    return memory.method


def probes(memory: Memory) -> Tensor:
    return probe_batch(memory.definition.input)


def named(task: int, *names: str) -> Examples:
    given = bars(task)
    return Examples(given.images, given.labels, names)


def candidate_of(memory: Memory, **settings: object) -> tuple[MapCandidate, RmnSettings]:
    chosen = RmnSettings.model_validate(settings)
    return MapCandidate(rmn(memory).shared, "new", ("a", "b"), chosen, 0), chosen


@pytest.mark.parametrize("shape", [(1,), (8,), (3, 5), (2, 3, 3, 3), (0, 4)])
def test_bits_are_packed_as_a_loop_would(shape: tuple[int, ...]) -> None:
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(1)) < 0.4
    slow = [0] * math.ceil(mask.numel() / 8)
    for place, value in enumerate(mask.flatten().tolist()):
        slow[place // 8] |= int(value) << place % 8
    bits = packed(mask)
    assert bits.dtype == torch.uint8
    assert bits.tolist() == slow
    assert torch.equal(unpacked(bits, shape), mask)
    with pytest.raises(DamagedSnapshot):
        unpacked(torch.cat([bits, bits[:1], torch.zeros(1, dtype=torch.uint8)]), shape)


def test_a_pass_uses_the_weights_of_its_map_and_nothing_else() -> None:
    memory = made(tasks=2)
    shared, images = rmn(memory).shared, probes(memory)[:3]
    one = shared.maps[1]
    for image, logits in zip(pixels(images), memory.observe(images).logits("task 1"), strict=True):
        values = image.flatten().double().tolist()
        for name in ("dense1", "dense2", HEAD):
            weight = shared.shared_weights[name].weight[shared.place(one, name)]
            bits = one.used[name].tolist()
            sums = []
            for row in range(len(weight)):
                total = 0.0
                for column in range(weight.shape[1]):
                    place = row * weight.shape[1] + column
                    if bits[place // 8] >> place % 8 & 1:
                        total += float(weight[row, column]) * values[column]
                sums.append(total if name == HEAD else max(0.0, total))
            values = sums
        torch.testing.assert_close(logits.double(), torch.tensor(values, dtype=torch.float64), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backbone", ["mlp", pytest.param("cnn", marks=pytest.mark.slow)])
def test_what_a_finished_map_uses_never_moves(backbone: str) -> None:
    memory = made(backbone, tasks=1)
    before = rmn(memory).shared
    seen = memory.observe(probes(memory)).logits("task 0").numpy().tobytes()
    memory.learn("task 1", bars(1), LONGER)
    memory.raise_budget(4.0)
    memory.learn("task 2", bars(2), LONGER)
    after = rmn(memory).shared
    assert memory.exact
    assert memory.observe(probes(memory)).logits("task 0").numpy().tobytes() == seen
    for name, shared_weight in before.shared_weights.items():
        now = after.shared_weights[name]
        corner = tuple(slice(0, side) for side in shared_weight.weight.shape)
        assert torch.equal(shared_weight.fixed, shared_weight.used)
        assert torch.equal(now.weight[corner][shared_weight.fixed], shared_weight.weight[shared_weight.fixed])
        assert torch.equal(now.first[corner][shared_weight.fixed], shared_weight.first[shared_weight.fixed])
    parts = dump(memory)
    rebuilt = restore(parts.definition, parts.engrams, parts.recogniser, parts.kept, parts.budget)
    assert compare(certify(memory), certify(rebuilt)) == []


def test_the_same_answers_are_restored_from_bits() -> None:
    parts = dump(made(tasks=2))
    again = restore(parts.definition, parts.engrams, parts.recogniser, parts.kept, parts.budget)
    assert dump(again) == parts
    weights = sum(shared_weight.weight.numel() for shared_weight in rmn(again).shared.shared_weights.values())
    values = sum(len(part) for part in rmn(again).shared.maps[1].values.values())
    assert len(bytes_of(parts.engrams[3])) < weights / 8 + 4 * values + 4096, "a map takes a bit for each weight"
    assert len(bytes_of(parts.engrams[1])) < 256, "nothing is loose where all that is used is fixed"
    shorter = restore(parts.definition, parts.engrams[:3], *_first(parts.recogniser, again), parts.budget)
    longer = restore(parts.definition, parts.engrams, parts.recogniser, None, parts.budget, reuse=shorter)
    assert rmn(longer).passes[0] is rmn(shorter).passes[0]
    assert len(rmn(longer).passes) == 2


def _first(recogniser: bytes, memory: Memory) -> tuple[bytes, None]:
    """The recogniser as it was after the first task."""
    from dataclasses import replace

    from engram.recognition.serialization import dump_recogniser, load_recogniser

    known = load_recogniser(recogniser)
    classes = known.profiles[0].classes
    return dump_recogniser(replace(known, profiles=known.profiles[:1], weights=known.weights[:, :classes])), None


def test_maps_on_other_weights_are_refused() -> None:
    parts = dump(made(tasks=2))
    for broken in (parts.engrams[:1], (*parts.engrams[:2], parts.engrams[3], parts.engrams[2])):
        with pytest.raises(DamagedSnapshot):
            restore(parts.definition, broken, parts.recogniser, None, parts.budget)


def test_as_published_what_has_not_settled_moves_and_is_kept() -> None:
    memory = made(tasks=1, options=LONGER, fixed="settled", settled_at=1.0, map_spread=0.05)
    shared_weight = rmn(memory).shared.shared_weights["dense1"]
    assert bool((shared_weight.used & ~shared_weight.fixed).any()), "some weights were to stay loose"
    then = certify(memory)
    memory.learn("task 1", bars(1), LONGER)
    now = certify(memory, learned=then.answers)
    assert not memory.exact
    assert compare(then, now) == ["task 0"]
    assert set(now.agreement) == {"task 0", "task 1"}
    parts = dump(memory)
    again = restore(parts.definition, parts.engrams, parts.recogniser, parts.kept, parts.budget)
    assert dump(again) == parts
    assert compare(now, certify(again)) == []


def test_labels_share_rows_of_the_head() -> None:
    memory = made(tasks=0)
    memory.learn("first", named(0, "left", "right"), QUICK)
    memory.learn("second", named(1, "right", "middle"), QUICK)
    shared = rmn(memory).shared
    assert shared.labels == ("left", "right", "middle")
    assert len(shared.shared_weights[HEAD].weight) == 3
    assert shared.rows(("right", "middle")).tolist() == [1, 2]
    assert memory.observe(probes(memory)).logits("second").shape[1] == 2


def test_capacity_counts_weights_as_units() -> None:
    memory = made(tasks=3)
    shared = rmn(memory).shared
    for layer in memory.capacity():
        first = shared.shared_weights[layer.layer].first
        free = sum(1 for value in first.flatten().tolist() if value < 0) / first.numel()
        assert abs(layer.free - free * layer.units) <= 0.5
        assert sum(layer.owned.values()) + layer.free == layer.units == memory.budget[layer.layer]
        assert layer.owned == {info.name: info.units[layer.layer] for info in memory.tasks}


def test_relevance_follows_its_formula() -> None:
    candidate, _ = candidate_of(made(tasks=1))
    one, weight = candidate.relevances["dense1"], candidate.free_weight("dense1").detach()
    one.beta = 7.0
    shared = rmn(made(tasks=1)).shared.shared_weights["dense1"]
    for training in (True, False):
        candidate.train(training)
        seen = candidate.get_submodule("blocks.dense1.linear").weight
        assert isinstance(seen, Tensor)
        for row, column in ((0, 0), (3, 5), (17, 40)):
            whole = shared.weight[row, column] if shared.fixed[row, column] else weight[row, column]
            relevance = float(one.relevance.detach()[row, column])
            soft = 1 / (1 + math.exp(-7.0 * (relevance - 0.5)))
            expected = float(whole) * (soft if training else float(relevance >= 0.5))
            assert float(seen.detach()[row, column]) == pytest.approx(expected, rel=1e-5, abs=1e-8)


def test_fixed_weights_have_no_gradient_and_maps_over_them_have() -> None:
    memory = made(tasks=1)
    candidate, _ = candidate_of(memory)
    fixed = rmn(memory).shared.shared_weights["dense1"].fixed
    assert bool(fixed.any())
    assert not bool(fixed.all())
    candidate.train()
    candidate.logits(candidate(pixels(bars(1).images), {})).square().sum().backward()  # type: ignore[no-untyped-call]
    gradient, over = candidate.free_weight("dense1").grad, candidate.relevances["dense1"].relevance.grad
    assert gradient is not None
    assert over is not None
    assert not bool(gradient[fixed].any())
    assert bool(gradient[~fixed].any())
    assert bool(over[fixed].any())


def test_sparsity_and_overlap_cost_relevance() -> None:
    memory = made(tasks=1)
    fixed = rmn(memory).shared.shared_weights["dense1"].fixed

    def after(**settings: object) -> tuple[float, float]:
        """Mean relevance of all weights, and of those that the first task uses, after some steps without images."""
        candidate, chosen = candidate_of(memory, noise=0.0, prune_below=0.0, **settings)
        regulariser = MapRegulariser(candidate, chosen, context(), 16, 40, torch.Generator(), (1, SIZE, SIZE))
        with regulariser.factory() as make:
            optimiser = make(list(candidate.parameters()))
            candidate.train()
            for _ in range(40):
                optimiser.zero_grad()
                for group in optimiser.param_groups:
                    group["lr"] = QUICK.learning_rate
                optimiser.step()
        relevance = candidate.relevances["dense1"].relevance.detach()
        return float(relevance.mean()), float(relevance[fixed].mean())

    free, reused = after()
    assert free == pytest.approx(0.7, abs=0.01)
    sparse, _ = after(sparsity=1.0)
    assert sparse < 0.6 * free
    rest, avoided = after(overlap=1.0)
    assert avoided < 0.6 * reused
    assert rest > 0.8 * free, "weights that nobody uses cost no overlap"


def test_noise_is_answered_with_nothing() -> None:
    noise = torch.randn(64, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(5))

    def loudness(weight: float) -> float:
        method = rmn(made(tasks=1, options=LONGER, noise=weight))
        return float(method.see(noise).heads[0].square().mean())

    assert loudness(1.0) < 0.2 * loudness(0.0)


def test_what_falls_under_the_threshold_is_given_up() -> None:
    candidate, settings = candidate_of(made(tasks=0), map_mean=0.1, map_spread=0.1, prune_below=0.05)
    one = candidate.relevances["dense1"]
    low = one.relevance.detach() < 0.05
    assert bool(low.any())
    regulariser = MapRegulariser(candidate, settings, context(), 16, 10, torch.Generator(), (1, SIZE, SIZE))
    with regulariser.factory() as make:
        optimiser = make(list(candidate.parameters()))
        candidate.train()
        candidate.logits(candidate(pixels(bars(0).images), {})).sum().backward()  # type: ignore[no-untyped-call]
        for group in optimiser.param_groups:
            group["lr"] = 0.0
        optimiser.step()
    assert bool((one.soft()[low] == 0).all())
    assert bool((one.soft()[~low] > 0).all())
    assert one.beta == pytest.approx(5.0 * 20 ** (1 / 10))


def test_the_largest_claimed_weights_are_kept() -> None:
    memory = made(tasks=1)
    candidate, _ = candidate_of(memory)
    claimed = {name: candidate.claimed(name) for name in candidate.relevances}
    reused = {name: one.used & ~claimed[name] for name, one in candidate.relevances.items()}
    candidate.keep(0.3, 0.0)
    total = kept = 0
    for name, one in candidate.relevances.items():
        size, stay = candidate.free_weight(name).detach().abs(), one.used & claimed[name]
        dropped = claimed[name] & ~stay
        total, kept = total + int(claimed[name].sum()), kept + int(stay.sum())
        assert bool((one.used & ~claimed[name]).eq(reused[name]).all())
        if bool(stay.any()) and bool(dropped.any()):
            assert float(size[stay].min()) >= float(size[dropped].max())
    assert abs(kept - 0.3 * total) <= len(claimed)


def test_recognition_by_the_maximum_is_the_largest_logit_of_all() -> None:
    memory = made(tasks=3, recognition="maximum")
    images = probes(memory)
    seen = memory.observe(images)
    names = [label for info in memory.tasks for label in info.classes]
    largest = torch.cat(seen.heads, 1).argmax(1).tolist()
    assert [answer.label for answer in memory.predict(images)] == [names[place] for place in largest]
    assert {answer.passes for answer in memory.predict(images)} == {3}
    calibrated = made(tasks=3, recognition="calibrated").observe(images)
    peaks = torch.stack([head.logsumexp(1) for head in calibrated.heads], 1)
    typical = torch.stack([one.peak for one in rmn(memory).shared.maps])
    expected = torch.log_softmax((peaks - typical[:, 0]) / typical[:, 1], 1)
    torch.testing.assert_close(calibrated.log_tasks, expected)


def test_residual_networks_are_refused_by_name() -> None:
    with pytest.raises(InvalidDefinition, match="resnet18"):
        Memory.create(definition("resnet18", method="rmn"))


def test_a_task_learns_on_a_network_without_a_free_weight() -> None:
    memory = made(tasks=1, options=LONGER.model_copy(update={"prune": False}), map_mean=1.0, map_spread=0.0)
    shared: SharedNetwork = rmn(memory).shared
    assert all(layer.free == 0 for layer in memory.capacity())
    assert bool(shared.shared_weights["dense1"].fixed.all())
    report = memory.learn("task 1", bars(1), LONGER.model_copy(update={"epochs": 20, "patience": 20}))
    assert report.accuracy["kept"] > 0.8, "choosing among fixed weights is learning too"
    assert not any(isinstance(module, nn.BatchNorm2d) for module in rmn(memory).passes[0].modules())


def test_no_class_is_pruned_away_to_a_tie() -> None:
    """Logits of 0 for a whole class are right by accident: two classes of bars tempt a map without biases to that."""
    for seed in range(4):
        memory = Memory.create(definition("mlp", budget=3.0, method="rmn", settings={"room": 1.0}, seed=seed))
        memory.learn("only", bars(1), LONGER.model_copy(update={"rounds": 3}))
        logits = memory.observe(bars(1).images).logits("only")
        assert float((logits[:, 0] == logits[:, 1]).double().mean()) < 0.02
