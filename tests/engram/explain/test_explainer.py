"""Tests of heatmaps by every composite: conservation, plain arithmetic, targets, PNG images."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from engram import Memory
from engram.errors import UnknownComposite, UnknownLabel, UnknownTask
from engram.explain.rules import COMPOSITES, CONSERVING
from testing.data.patterns import QUICK, SIZE, bars, learned, network_of


@pytest.fixture(scope="module", params=["mlp", "cnn", "resnet18", pytest.param("resnet50", marks=pytest.mark.slow)])
def memory(request: pytest.FixtureRequest) -> Memory:
    return learned(request.param, tasks=2, options=QUICK.model_copy(update={"epochs": 6}))


@pytest.mark.parametrize("composite", COMPOSITES)
def test_every_composite_explains_and_changes_nothing(memory: Memory, composite: str) -> None:
    image = bars(0).images[0]
    before = memory.observe(image[None]).logits("task 0")
    heatmap = memory.explain(image, task="task 0", composite=composite)
    assert heatmap.relevance.shape == (1, SIZE, SIZE)
    assert heatmap.relevance.isfinite().all()
    assert heatmap.relevance.abs().sum() > 0
    assert torch.equal(memory.observe(image[None]).logits("task 0"), before)
    assert torch.equal(memory.explain(image, task="task 0", composite=composite).relevance, heatmap.relevance)


@pytest.mark.parametrize("composite", CONSERVING)
def test_relevance_sums_to_the_explained_logit(memory: Memory, composite: str) -> None:
    for image in bars(1).images[:4]:
        heatmap = memory.explain(image, task="task 1", composite=composite)
        # Units that a bias alone drives have no input to give relevance to: deep narrow networks lose some there.
        lost = {"resnet18": 0.25, "resnet50": 0.6}.get(memory.definition.backbone, 0.01)
        assert abs(heatmap.total - heatmap.logit) <= lost * abs(heatmap.logit)


@pytest.mark.parametrize("composite", ["epsilon_gamma_box", "epsilon_alpha2_beta1"])
def test_signed_rules_do_not_explode_where_branches_cancel(memory: Memory, composite: str) -> None:
    for image in torch.cat([bars(0).images[:4], bars(1).images[:4]]):
        heatmap = memory.explain(image, composite=composite)
        assert abs(heatmap.total) <= 3 * abs(heatmap.logit) + 0.5


def test_the_first_layer_epsilon_rule_against_plain_arithmetic() -> None:
    """One dense layer and a head, propagated by hand."""
    memory = learned("mlp", tasks=1, depth=1, settings={"read_commons": False})
    image = bars(0).images[0]
    engram = network_of(memory).stack[0]
    state = {name: value.double() for name, value in engram.state_dict().items()}
    pixels = image.flatten().double() / 255
    w1, b1 = state["blocks.dense1.linear.weight"], state["blocks.dense1.linear.bias"]
    w2, b2 = state["head.weight"][0], state["head.bias"][0]
    hidden = (w1 @ pixels + b1).clamp_min(0)
    logit = w2 @ hidden + b2
    share = w2 * hidden / (w2 @ hidden)
    upper = share * logit
    lower = ((w1 * pixels) / (w1 @ pixels)[:, None] * upper[:, None]).sum(0)
    heatmap = memory.explain(image, target="task 0 class 0", composite="epsilon_plus")
    assert heatmap.logit == pytest.approx(float(logit), rel=1e-5)
    np.testing.assert_allclose(heatmap.relevance.flatten().double(), lower, rtol=5e-2, atol=5e-3)


def test_the_target_decides_what_is_explained(memory: Memory) -> None:
    image = bars(1).images[0]
    for label in ("task 1 class 0", "task 1 class 1"):
        heatmap = memory.explain(image, target=label)
        assert (heatmap.task, heatmap.label) == ("task 1", label)
    default = memory.explain(image)
    assert default.label == memory.predict(image[None])[0].label


def test_unknown_names_are_refused(memory: Memory) -> None:
    image = bars(0).images[0]
    with pytest.raises(UnknownTask):
        memory.explain(image, task="nothing")
    with pytest.raises(UnknownLabel):
        memory.explain(image, target="nothing")
    with pytest.raises(UnknownLabel):
        memory.explain(image, task="task 1", target="task 0 class 0")
    with pytest.raises(UnknownComposite):
        memory.explain(image, composite="nothing")


@pytest.mark.parametrize("style", ["overlay", "heatmap"])
def test_pictures_are_large_enough_to_see(memory: Memory, style: str) -> None:
    data = memory.explain(bars(0).images[0]).png(style)
    with Image.open(io.BytesIO(data)) as picture:
        assert picture.format == "PNG"
        assert min(picture.size) >= 224
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    assert (pixels[..., 0] - pixels[..., 2] > 60).any(), "something speaks for the answer, in red"


def test_a_dense_first_layer_is_explained_pixel_by_pixel() -> None:
    memory = learned("mlp", tasks=1, settings={"read_commons": False})
    heatmap = memory.explain(bars(0).images[0])
    assert heatmap.composite == "epsilon_plus"
    assert float(heatmap.relevance.std()) > 1e-3 * float(heatmap.relevance.abs().max())
