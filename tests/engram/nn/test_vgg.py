"""Tests of the layouts of VGG: the paper's sizes, images of every side, all methods."""

from __future__ import annotations

import pytest
import torch

from engram.certificate import certify, compare
from engram.config.definition import Definition, InputShape
from engram.errors import InvalidDefinition
from engram.explain.rules import CONSERVING
from engram.memory import Memory, dump, restore
from engram.nn.backbones import layout_of
from engram.nn.layout import Layout
from engram.nn.network import Engram
from testing.data.patterns import QUICK, bars, definition

SETTINGS = {"rnf": {}, "rerelrp": {"trees": 10}, "rmn": {}, "sharc": {}}


def layout_for(backbone: str, side: int, channels: int = 3) -> Layout:
    shape = InputShape(channels=1 if channels == 1 else 3, height=side, width=side + 3)
    return layout_of(Definition.model_validate({"backbone": backbone, "input": shape}))


@pytest.mark.parametrize(
    ("backbone", "convolutions", "parameters"), [("vgg11", 8, 9_220_480), ("vgg16", 13, 14_714_688)]
)
def test_convolutions_are_those_of_the_paper(backbone: str, convolutions: int, parameters: int) -> None:
    """The numbers are those of torchvision's `vgg11` and `vgg16`, whose convolutions have biases."""
    layout = layout_for(backbone, 32)
    layers = [node for node in layout.nodes if node.operation == "conv"]
    assert len(layers) == convolutions
    weights = sum(layout.incoming(node, layout.widths) * layout.widths[node.layer] * node.kernel**2 for node in layers)
    assert weights + sum(layout.widths[node.layer] for node in layers) == parameters


@pytest.mark.parametrize("backbone", ["vgg11", "vgg16"])
@pytest.mark.parametrize(("side", "last"), [(32, 1), (63, 1), (64, 2), (224, 7)])
def test_each_stage_halves_and_one_dense_layer_reads_what_is_left(backbone: str, side: int, last: int) -> None:
    layout = layout_for(backbone, side)
    size = layout.node("pool5").size
    assert size is not None
    assert size[0] == last
    assert layout.incoming(layout.features, layout.widths) == 512
    assert layout.widths["dense"] == 512


def test_images_that_are_halved_away_are_refused() -> None:
    with pytest.raises(InvalidDefinition, match="vgg11 halves 31 pixels away; it takes images of 32 or more"):
        layout_for("vgg11", 31)


def test_a_whole_network_of_larger_images_computes() -> None:
    shape = InputShape(channels=3, height=40, width=71)
    layout = layout_of(definition("vgg16", 3, input=shape))
    engram = Engram(layout, "task", ("a", "b"), dict.fromkeys(layout.layers, 0), layout.widths).eval()
    with torch.no_grad():
        assert engram.logits(engram(torch.rand(2, 3, 40, 71), {})).shape == (2, 2)


def taught(**changes: object) -> Memory:
    """A narrow model of one task."""
    memory = Memory.create(definition("vgg11", 1, width=0.02, **changes))
    memory.learn("task 0", bars(0, 12, side=32), QUICK)
    return memory


def test_what_was_learned_stays_is_stored_and_explained() -> None:
    memory = taught()
    before, image = certify(memory), bars(0, 1, side=32).images[0]
    memory.learn("task 1", bars(1, 12, side=32), QUICK)
    assert compare(before, certify(memory)) == []
    parts = dump(memory)
    again = restore(parts.definition, parts.engrams, parts.recogniser, parts.kept, parts.budget)
    assert compare(certify(memory), certify(again)) == []
    for composite in (*CONSERVING, "epsilon_gamma_box"):
        heatmap = again.explain(image, task="task 0", composite=composite)
        assert heatmap.relevance.isfinite().all()
        if composite in CONSERVING:
            assert abs(heatmap.total - heatmap.logit) <= 0.05 * abs(heatmap.logit)


@pytest.mark.parametrize("method", SETTINGS)
def test_every_other_method_learns_it(method: str) -> None:
    retention = "features" if method == "sharc" else "none"
    memory = taught(method=method, settings=SETTINGS[method], retention=retention)
    before = certify(memory)
    memory.learn("task 1", bars(1, 12, side=32), QUICK)
    if memory.exact:
        assert compare(before, certify(memory)) == []
    images = bars(1, 2, side=32).images
    assert len(memory.predict(images)) == 4
    assert memory.explain(images[0], task="task 1").relevance.shape == (1, 32, 32)
