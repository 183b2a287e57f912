"""Tests of heatmaps of models over pretrained commons: adapters, networks, several side by side."""

from __future__ import annotations

from typing import Any

import pytest

from engram import Definition, InputShape, Memory
from engram.errors import UnknownComposite
from engram.explain.pretrained.offer import PATHS
from engram.explain.rules import CONSERVING
from engram.nn.pretrained.backbone import Backbone
from testing.data.patterns import QUICK, SIZE, bars
from tests.engram.nn.pretrained.drawn import drawn

NETWORK = {"kind": "pretrained", "backbone": "net", "size": 32}
BANK = {"features": 64, "patch": 4}


def taught(backbone: str, commons: Any, network: str = "timm/test_resnet") -> Memory:
    """A model of one task."""
    arguments = {"num_classes": 5} | ({"img_size": 32} if "vit" in network else {})
    brought = drawn(network, arguments, size=32)
    fields = {"backbone": backbone, "width": 0.2, "commons": commons, "recipe": 3}
    shape = InputShape(channels=3, height=SIZE, width=SIZE)
    definition = Definition.model_validate({**fields, "input": shape})
    memory = Memory.create(definition, {"net": Backbone(brought.description, lambda: brought.file)})
    memory.learn("task", bars(0, 12, channels=3), QUICK)
    return memory


@pytest.mark.parametrize(
    ("backbone", "commons", "network", "default", "fit"),
    [
        ("adapter", [NETWORK, BANK], "timm/test_resnet", "epsilon_plus_flat", (*CONSERVING, *PATHS)),
        ("cnn", NETWORK, "timm/test_vit", "integrated_gradients", PATHS),
        ("cnn", [BANK, {**BANK, "patch": 3}], "timm/test_resnet", "epsilon_plus_flat", CONSERVING),
    ],
)
def test_heatmaps_of_a_model_go_through_all_that_it_reads(
    backbone: str, commons: Any, network: str, default: str, fit: tuple[str, ...]
) -> None:
    memory, image = taught(backbone, commons, network), bars(0, 1, channels=3).images[1]
    logits = memory.observe(image[None], "task").logits("task")[0]
    assert memory.explain(image).composite == default
    for composite in fit:
        found = memory.explain(image, task="task", target="task 0 class 1", composite=composite)
        assert found.relevance.shape == (3, SIZE, SIZE)
        assert found.logit == pytest.approx(float(logits[1]), abs=0.05)  # what is read is rounded
        if composite in CONSERVING:
            # Units of the model's own engrams that a bias alone drives have no input to give relevance to.
            assert found.total == pytest.approx(found.logit, rel=0.1)
        elif composite == "integrated_gradients":
            assert found.goal is not None
            assert abs(found.total - found.goal) <= 0.05 * float(found.relevance.abs().sum())
    for composite in {*CONSERVING, *PATHS} - set(fit):
        with pytest.raises(UnknownComposite):
            memory.explain(image, composite=composite)
