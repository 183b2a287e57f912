"""Tests of pruning: scores of units, and the narrowest sub-network that keeps the accuracy."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch

from engram.checkpointing.progress import Reporter
from engram.data.examples import Examples
from engram.nn.backbones import layout_of
from engram.nn.network import Engram, Network, pixels
from engram.training.importance import score_units
from engram.training.measuring import measure
from engram.training.pruning import choose, smallest
from testing.data.patterns import QUICK, bars, definition, learned, network_of


def test_the_best_units_of_the_whole_network_stay_and_every_layer_keeps_its_floor() -> None:
    scores = {"first": torch.tensor([9.0, 0.1, 8.0, 7.0]), "last": torch.tensor([0.3, 0.2, 0.01, 0.02])}
    keep = choose(scores, fraction=3 / 8, floor=0.5)
    assert keep["first"].tolist() == [0, 2, 3]
    assert keep["last"].tolist() == [0, 1]


def test_wide_layers_keep_multiples_of_eight() -> None:
    scores = {"wide": torch.arange(64.0), "narrow": torch.arange(10.0)}
    keep = choose(scores, fraction=0.3, floor=0.05)
    assert len(keep["wide"]) % 8 == 0
    assert 0 < len(keep["wide"]) < 64


def _trained() -> tuple[Network, Engram]:
    memory = learned("cnn", tasks=2, options=QUICK.model_copy(update={"prune": False}), settings={"reads": "all"})
    *below, last = network_of(memory).stack
    return Network(network_of(memory).layout, below), last


@pytest.mark.parametrize("needed", [0.0, 0.3, 0.55, 0.9])
def test_bisection_finds_the_narrowest_engram_that_holds(needed: float) -> None:
    """Against a judge whose answer depends on the size alone, compared with trying every size."""
    _, engram = _trained()
    generator = torch.Generator().manual_seed(0)
    scores = {layer: torch.rand(units, generator=generator) + 0.1 for layer, units in engram.units.items()}
    whole = sum(engram.units.values())

    def accuracy_of(candidate: Engram) -> float:
        return 1.0 if sum(candidate.units.values()) >= needed * whole else 0.0

    found = smallest(engram, scores, 0.05, 1.0, accuracy_of, steps=12)
    sizes = [sum(len(kept) for kept in choose(scores, count / whole, 0.05).values()) for count in range(1, whole + 1)]
    narrower = [size for size in sizes if needed * whole <= size < whole]
    if not narrower:
        assert found is None
    else:
        assert found is not None
        assert sum(found.engram.units.values()) == min(narrower)


def test_what_several_shares_keep_is_judged_once() -> None:
    _, engram = _trained()
    generator = torch.Generator().manual_seed(0)
    scores = {layer: torch.rand(units, generator=generator) + 0.1 for layer, units in engram.units.items()}
    judged: list[tuple[int, ...]] = []

    def accuracy_of(candidate: Engram) -> float:
        judged.append(tuple(candidate.units.values()))
        return 1.0 if sum(candidate.units.values()) > 0.4 * sum(engram.units.values()) else 0.0

    assert smallest(engram, scores, 0.05, 1.0, accuracy_of, steps=20) is not None
    assert len(judged) == len(set(judged)) < 20


def test_nothing_is_found_when_nothing_narrower_holds() -> None:
    _, engram = _trained()
    generator = torch.Generator().manual_seed(0)
    scores = {layer: torch.rand(units, generator=generator) + 0.1 for layer, units in engram.units.items()}
    assert smallest(engram, scores, 0.05, 1.0, lambda candidate: 0.0) is None


@pytest.mark.parametrize("kind", ["l1", "l2", "taylor", "lrp", "random"])
def test_scores_have_one_positive_mean_number_per_unit(kind: str) -> None:
    network, engram = _trained()
    before = {name: value.clone() for name, value in engram.state_dict().items()}
    for parameter in engram.parameters():
        parameter.requires_grad_(True)
    generator = torch.Generator().manual_seed(0)
    scores = score_units(kind, network, engram, bars(1), generator, Reporter(), torch.device("cpu"))
    for layer, units in engram.units.items():
        assert scores[layer].shape == (units,)
        assert (scores[layer] >= 0).all()
        assert float(scores[layer].mean()) == pytest.approx(1.0, abs=1e-4)
    assert all(torch.equal(value, before[name]) for name, value in engram.state_dict().items())


@pytest.mark.parametrize("kind", ["taylor", "lrp"])
def test_a_unit_that_says_nothing_scores_nothing(kind: str) -> None:
    network, engram = _trained()
    with torch.no_grad():
        norm = engram.get_submodule("blocks.conv1.norm")
        assert isinstance(norm.weight, torch.Tensor)
        assert isinstance(norm.bias, torch.Tensor)
        norm.weight[0], norm.bias[0] = 0.0, -1.0
    for parameter in engram.parameters():
        parameter.requires_grad_(True)
    generator = torch.Generator().manual_seed(0)
    scores = score_units(kind, network, engram, bars(1), generator, Reporter(), torch.device("cpu"))
    assert float(scores["conv1"][0]) < 1e-6
    assert float(scores["conv1"].max()) > 0.5


def test_pruning_keeps_the_accuracy_it_was_told_to_keep() -> None:
    options = QUICK.model_copy(update={"prune": False, "epochs": 8, "patience": 8})
    memory = learned("cnn", tasks=2, options=options, settings={"reads": "all"})
    network, engram = Network(network_of(memory).layout, network_of(memory).stack[:1]), network_of(memory).stack[1]
    examples = bars(1)
    trained = measure(network, engram, examples)
    assert trained.accuracy > 0.9, "an engram at chance would hold its accuracy without any unit"
    scores = score_units("l2", network, engram, examples, torch.Generator(), Reporter(), torch.device("cpu"))
    found = smallest(
        engram, scores, 0.05, trained.accuracy - 0.05, lambda candidate: measure(network, candidate, examples).accuracy
    )
    assert found is not None
    assert sum(found.engram.units.values()) < sum(engram.units.values())
    assert measure(network, found.engram, examples).accuracy == found.accuracy >= trained.accuracy - 0.05


@pytest.mark.parametrize("balanced", [False, True])
def test_measuring_ends_once_the_accuracy_cannot_be_reached(balanced: bool) -> None:
    layout, some = layout_of(definition("mlp", 1)), bars(1, 600)
    torch.manual_seed(0)
    engram = Engram(layout, "task", ("a", "b"), dict.fromkeys(layout.layers, 0), dict(layout.widths), ()).freeze()
    labels = engram.answer(pixels(some.images), {}).argmax(1)
    labels[::4] = 1 - labels[::4]
    network, given, parts = Network(layout), Examples(some.images, labels, some.classes), list[int]()

    def looked() -> bool:
        parts.append(1)
        return False

    reporter = Reporter(cancel=looked)
    judged = partial(measure, network, engram, given, reporter=reporter, balanced=balanced)
    whole = judged()
    assert whole.accuracy == 0.75 if not balanced else 0 < whole.accuracy < 0.95
    assert len(parts) == 3, "there is something to be left out"
    parts.clear()
    found = judged(least=0.95)
    assert found.loss == math.inf
    assert whole.accuracy < found.accuracy < 0.95
    assert balanced or found.accuracy == 1 - 128 / 1200, "all but a quarter of the first part are right at best"
    assert len(parts) == 1
    for least in (whole.accuracy, 0.5):
        assert judged(least=least) == whole
