"""Tests of heatmaps of engrams that read of others: relevance passes through what is read."""

from __future__ import annotations

import pytest
import torch

from engram.explain.explainer import Explainer
from engram.explain.rules import COMPOSITES, CONSERVING
from engram.nn.backbones import layout_of
from engram.nn.network import Engram, Network
from engram.nn.reads import whole
from engram.training.trainer import Trainer, TrainingPhase
from testing.data.patterns import QUICK, bars, context, definition


@pytest.fixture(scope="module", params=["mlp", "cnn", "resnet18"])
def network(request: pytest.FixtureRequest) -> Network:
    """Two trained engrams, of which the second reads the first; a third between them is read by nobody."""
    layout = layout_of(definition(request.param))
    network = Network(layout)
    options = QUICK.model_copy(update={"epochs": 4})
    for task in range(3):
        examples = bars(task)
        reads = [whole(engram.task, engram.units) for engram in network.stack[:1]] if task == 2 else []
        torch.manual_seed(task)
        engram = Engram.reading(layout, f"task {task}", examples.classes, reads, layout.widths)
        trainer = Trainer(network, examples, examples, context(options), torch.Generator().manual_seed(0))
        trainer.fit(engram, TrainingPhase.to_plateau(options))
        network = network.appended(engram.freeze())
    assert network.closure("task 2").owners == ("task 0", "task 2")
    return network


@pytest.mark.parametrize("composite", COMPOSITES)
def test_every_composite_explains_the_answer_and_changes_nothing(network: Network, composite: str) -> None:
    image = bars(2).images[0]
    before = network.answer("task 2", image[None] / 255.0)[1]
    heatmap = Explainer(network.stack).explain(image, 2, 1, composite)
    assert heatmap.relevance.isfinite().all()
    assert heatmap.relevance.abs().sum() > 0
    assert heatmap.logit == pytest.approx(float(before[0, 1]), rel=1e-4, abs=1e-4)
    assert torch.equal(network.answer("task 2", image[None] / 255.0)[1], before)


@pytest.mark.parametrize("composite", CONSERVING)
def test_relevance_sums_to_the_explained_logit(network: Network, composite: str) -> None:
    lost = 0.25 if len(network.layout.nodes) > 20 else 0.01
    for image in bars(2).images[:4]:
        heatmap = Explainer(network.stack).explain(image, 2, 0, composite)
        assert abs(heatmap.total - heatmap.logit) <= lost * abs(heatmap.logit)


def test_relevance_of_an_engram_that_only_reads_is_that_of_what_it_reads() -> None:
    """A head over nothing but the units of the first engram explains as the first one's own head does."""
    torch.manual_seed(0)
    layout = layout_of(definition("cnn"))
    first = Engram.reading(layout, "first", ("a", "b"), (), layout.widths).freeze()
    last = layout.features.layer
    reader = Engram.reading(layout, "reader", ("a", "b"), [whole("first", {last: layout.widths[last]})], layout.widths)
    with torch.no_grad():
        reader.head.weight.zero_()
        reader.head.weight[:, : first.head.in_features] = first.head.weight
        reader.head.bias.copy_(first.head.bias)
    explainer = Explainer([first, reader.freeze()])
    image = bars(0).images[0]
    for composite in ("epsilon_plus", "gradient_times_input"):
        found, expected = (explainer.explain(image, owner, 1, composite) for owner in (1, 0))
        assert found.logit == pytest.approx(expected.logit, rel=1e-5)
        torch.testing.assert_close(found.relevance, expected.relevance, rtol=1e-3, atol=1e-5)


def test_engrams_outside_the_closure_are_not_touched(network: Network) -> None:
    image = bars(2).images[0]
    expected = Explainer(network.stack).explain(image, 2, 0, "epsilon_plus")
    found = Explainer([network.stack[0], network.stack[2]]).explain(image, 1, 0, "epsilon_plus")
    assert torch.equal(found.relevance, expected.relevance)
