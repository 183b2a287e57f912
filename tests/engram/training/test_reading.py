"""Tests of choosing what an engram reads: bounds, scores, reads that earn their place."""

from __future__ import annotations

import pytest
import torch

from engram.checkpointing.progress import Reporter
from engram.config.options import LearnOptions
from engram.data.examples import Examples
from engram.nn.backbones import layout_of
from engram.nn.capacity import budget_of
from engram.nn.network import Engram, Network
from engram.nn.reads import whole
from engram.training.importance import score_units
from engram.training.learner import Learner
from engram.training.pruning import choose, cut_to, smallest
from engram.training.reading import ReadingChoice, earned, without, worth
from engram.training.report import LearningReport
from testing.data.patterns import QUICK, bars, context, definition
from tests.engram.nn.reading import random_engram, random_network

SCORES = ("l1", "l2", "taylor", "lrp", "random")


def _learned(
    network: Network,
    task: int,
    choice: ReadingChoice | None,
    options: LearnOptions = QUICK,
    data: Examples | None = None,
) -> tuple[Engram, LearningReport]:
    budget = budget_of(network.layout, 20.0)
    engram, report, _, _ = Learner(network, budget, context(options), choice).learn(f"task {task}", data or bars(task))
    return engram, report


def _reader(network: Network) -> Engram:
    """An untrained engram that reads all of all."""
    torch.manual_seed(3)
    reads = [whole(engram.task, engram.units) for engram in network.stack]
    return Engram.reading(network.layout, "reader", bars(1).classes, reads, network.layout.widths).eval()


def test_without_candidates_nothing_is_read() -> None:
    network = Network(layout_of(definition("cnn")))
    for task in range(2):
        engram, report = _learned(network, task, ReadingChoice())
        assert engram.reads == ()
        assert report.details["reads"] == {}
        network = network.appended(engram)
    assert network.closure("task 1").owners == ("task 1",)


def test_an_engram_without_candidates_is_the_same_whatever_came_before() -> None:
    layout = layout_of(definition("cnn"))
    alone, _ = _learned(Network(layout), 1, ReadingChoice())
    later, _ = _learned(random_network("cnn", owners=1, width=0.5), 1, ReadingChoice())
    for name, value in alone.state_dict().items():
        assert torch.equal(later.state_dict()[name], value)


def test_candidates_that_cost_too_much_are_dropped_before_training() -> None:
    network = random_network("cnn", owners=3, width=0.5)
    units = network.layout.widths

    def first(candidates: tuple[str, ...], bound: float) -> list[str]:
        return [read.owner for read in ReadingChoice(candidates, bound).first(network, "new", ("a", "b"), units)]

    assert first(("task 2", "task 0"), 100.0) == ["task 2", "task 0"]
    assert first(("task 2", "task 0"), 1.0) == []
    engram = Engram.reading(network.layout, "new", ("a", "b"), [whole("task 1", network.stack[1].units)], units)
    closure = network.closure_with(engram)
    assert first(("task 1",), closure.total / closure.alone) == ["task 1"]
    assert first(("task 1",), closure.total / closure.alone - 1e-9) == []


def test_a_task_that_is_easy_alone_reads_nothing() -> None:
    network = random_network("cnn", owners=1, width=0.5)
    options = QUICK.model_copy(update={"epochs": 6, "patience": 6})
    alone, _ = _learned(network, 1, ReadingChoice(), options)
    engram, report = _learned(network, 1, ReadingChoice(("task 0",), 10.0), options)
    assert engram.reads == ()
    assert report.accuracy["network"] > 0.9
    for name, value in alone.state_dict().items():
        assert torch.equal(engram.state_dict()[name], value)


def _told_by(below: Engram) -> Examples:
    """Noise whose labels say which of two units of an engram is larger: by reading it a few steps find that."""
    images = torch.randint(0, 256, (400, 1, 12, 12), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    values = Network(below.layout, [below]).answer(below.task, images / 255.0)[0]  # (N, features)
    varied = values.std(0).topk(2).indices
    difference = values[:, varied[0]] - values[:, varied[1]]
    return Examples(images, (difference > difference.median()).long(), ("less", "more"))


@pytest.mark.parametrize("prune", [True, False])
def test_reads_that_earn_their_place_are_taken_within_the_bound(prune: bool) -> None:
    torch.manual_seed(0)
    layout = layout_of(definition("mlp"))
    network = Network(layout, [random_engram(layout, name, (), layout.widths) for name in ("below", "other")])
    with torch.no_grad():
        for engram in network.stack:  # units that say much, each about half of the images
            weight = engram.block(layout.node("dense1")).get_parameter("linear.weight")
            weight.sub_(weight.mean(1, keepdim=True)).mul_(5)
    learning = {"epochs": 12, "patience": 12, "learning_rate": 1e-2}
    options = QUICK.model_copy(update={**learning, "tolerance": 0.02, "prune": prune})
    data = _told_by(network.stack[0])
    choice = ReadingChoice(("below", "other"), 3.0)
    alone, judged = _learned(network, 1, ReadingChoice(), options, data)
    engram, report = _learned(network, 1, choice, options, data)
    assert alone.reads == ()
    assert engram.reads
    assert [read.owner for read in engram.reads] == ["below"], "both together are beyond the bound"
    assert report.accuracy["network"] > judged.accuracy["network"]
    closure = network.appended(engram).closure(engram.task)
    assert closure.total <= 3.0 * closure.alone
    assert report.details["reads"] == {
        read.owner: {layer: len(units) for layer, units in read.units.items()} for read in engram.reads
    }


def test_reads_have_to_be_better_than_chance_would_have_it() -> None:
    assert earned(0.9, 100, 0.002) == pytest.approx(0.93)
    assert earned(0.9, 10**8, 0.002) == pytest.approx(0.902)
    assert earned(1.0, 100, 0.002) > 1


@pytest.mark.parametrize("kind", SCORES)
@pytest.mark.parametrize("backbone", ["mlp", "cnn", "resnet18"])
def test_scores_stand_for_what_is_read_and_for_the_own_units(kind: str, backbone: str) -> None:
    network = random_network(backbone, owners=2, width=0.1)
    engram = _reader(network)
    with torch.no_grad():  # the first unit that is read in each layer is read by nobody
        for node in engram.layout.nodes:
            if node.mixing and node.sources[0] in engram.layout.read():
                origin = engram.layout.node(node.sources[0])
                next(engram.block(node).parameters())[:, : origin.per_unit] = 0
        engram.head.weight[:, : engram.layout.features.per_unit] = 0
    drawn = torch.Generator().manual_seed(0)
    scores = score_units(kind, network, engram, bars(1), drawn, Reporter(), torch.device("cpu"))
    for layer, units in engram.reach.items():
        assert scores[layer].shape == (units,)
        assert (scores[layer] >= 0).all()
        assert float(scores[layer].mean()) == pytest.approx(1.0, abs=1e-4)
        if kind != "random":
            assert float(scores[layer][0]) < 1e-6
            assert float(scores[layer][: engram.earlier[layer]].max()) > 1e-3, "others that are read count"


def test_a_unit_scores_the_same_whether_it_is_own_or_read() -> None:
    """One network as one engram, and as an engram that reads the first one's units where they are pooled."""
    torch.manual_seed(0)
    layout = layout_of(definition("cnn"))
    single = Engram.reading(layout, "single", bars(1).classes, (), layout.widths)
    below = Engram.reading(layout, "below", single.classes, (), layout.widths)
    below.load_state_dict(single.state_dict())
    network = Network(layout, [below.freeze()])
    last = layout.layers[-1]
    reader = Engram.reading(
        layout, "reader", bars(1).classes, [whole("below", {last: layout.widths[last]})], layout.widths
    )
    with torch.no_grad():
        reader.head.weight.zero_()
        reader.head.weight[:, : layout.widths[last]] = single.head.weight
        reader.head.bias.copy_(single.head.bias)
    for kind in ("taylor", "lrp"):
        found, expected = (
            score_units(kind, network, engram, bars(1), torch.Generator(), Reporter(), torch.device("cpu"))[last]
            for engram in (reader.eval(), single.eval())
        )
        read = found[: layout.widths[last]]
        torch.testing.assert_close(read / read.mean(), expected, rtol=1e-3, atol=1e-4)


def test_what_is_read_has_no_floor_and_no_steps() -> None:
    scores = {"layer": torch.tensor([0.1, 5.0, 0.1, *[1.0] * 16]), "last": torch.tensor([0.1, 0.2, 0.3])}
    keep = choose(scores, 0.1, 0.05, {"layer": 3, "last": 2})
    assert keep["layer"].tolist()[0] == 1
    assert (len(keep["layer"]) - 1) % 8 == 0
    assert keep["last"].tolist() == [2]


def test_cut_engrams_keep_what_was_chosen() -> None:
    network = random_network("cnn", owners=2)
    engram = _reader(network)
    scores = {layer: torch.rand(units) for layer, units in engram.reach.items()}
    keep = choose(scores, 0.4, 0.05, engram.earlier)
    narrow = cut_to(engram, keep)
    assert narrow.reach == {layer: len(kept) for layer, kept in keep.items()}
    values = worth(engram, scores, keep)
    total = sum(float(scores[layer][kept[kept < engram.earlier[layer]]].sum()) for layer, kept in keep.items())
    assert sum(values.values()) == pytest.approx(total, rel=1e-5)
    left = without(narrow, {"task 0"})
    assert left.reads is not None
    assert [read.owner for read in left.reads] == ["task 1"]
    assert left.units == narrow.units


def test_the_owner_of_the_least_worth_goes_first() -> None:
    network = random_network("cnn", owners=2)
    engram = _reader(network)
    closure = network.closure_with(without(engram, {"task 0"}))
    bound = ReadingChoice((), closure.total / closure.alone)
    assert network.closure_with(engram).total > bound.closure * network.closure_with(engram).alone
    kept = bound.bounded(network, engram, {"task 0": 1.0, "task 1": 2.0})
    assert kept.reads is not None
    assert [read.owner for read in kept.reads] == ["task 1"]
    assert ReadingChoice((), 1.0).bounded(network, engram, {"task 0": 2.0, "task 1": 1.0}).reads == ()


def test_every_candidate_of_the_search_keeps_the_bound() -> None:
    network = random_network("cnn", owners=2)
    engram, choice, judged = _reader(network), ReadingChoice((), 2.5), 0
    scores = {layer: torch.rand(units) for layer, units in engram.reach.items()}

    def accuracy_of(candidate: Engram) -> float:
        nonlocal judged
        judged += 1
        assert choice.within(network, candidate)
        return 1.0

    found = smallest(
        engram, scores, 0.05, 1.0, accuracy_of, bounded=lambda one, worths: choice.bounded(network, one, worths)
    )
    assert found is not None
    assert judged > 0


def test_a_mean_of_ones_that_came_out_above_one_asks_for_no_more_than_what_pruning_may_cost() -> None:
    assert earned(1.0000000000000002, 40, 0.01) == pytest.approx(1.01)
