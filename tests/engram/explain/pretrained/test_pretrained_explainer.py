"""Tests of heatmaps through networks that users bring: conservation, references, threads."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engram.errors import UnknownComposite
from engram.explain.pretrained.explainer import PretrainedExplainer
from engram.explain.pretrained.flow import flow_of
from engram.explain.pretrained.gradients import SAMPLES, STEPS
from engram.explain.pretrained.offer import PATHS, explains
from engram.explain.pretrained.private_network import private_network
from engram.explain.pretrained.reading import Explained, LinearReading, OwnLogit, PooledReading
from engram.explain.pretrained.sharing import shared_by_magnitude
from engram.explain.rules import COMPOSITES, CONSERVING
from engram.nn.pretrained.preprocessing import prepare
from tests.engram.explain.pretrained.networks import (
    Averaged,
    TwoDense,
    built,
    by_hand,
    explainer,
    levels,
    picture,
    preprocessing,
    seen,
)

PROPAGATING = ("timm/test_resnet", "torchvision/shufflenet_v2_x0_5", "torchvision/mobilenet_v2")
GRADIENT = ("timm/test_vit", "timm/test_efficientnet", "torchvision/mobilenet_v3_small")


def readings(name: str, image: Tensor) -> list[Explained]:
    """A linear function of all that can be read, and the network's largest logit."""
    found = seen(name, image)
    generator = torch.Generator().manual_seed(1)

    def drawn(count: int) -> Tensor:
        return torch.randn(count, generator=generator) / count

    weights = tuple(drawn(level.shape[1]) for level in found.levels)
    assert found.logits is not None
    return [LinearReading(weights, drawn(found.features.shape[1]), 0.1), OwnLogit(int(found.logits.argmax()))]


@pytest.mark.parametrize("name", PROPAGATING)
def test_relevance_sums_to_what_is_explained_and_changes_nothing(name: str) -> None:
    module, image = built(name), picture(40)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    explained = explainer(name)
    for reading in readings(name, image):
        expected = float(reading.logit(seen(name, image)))
        for composite in CONSERVING:
            found = explained.explain(image, reading, composite)
            assert found.relevance.shape == (3, 40, 40)
            assert found.logit == pytest.approx(expected, rel=1e-3, abs=1e-4)
            assert found.goal == found.logit
            assert found.lost is not None
            assert found.lost < 1e-3
            assert torch.equal(explained.explain(image, reading, composite).relevance, found.relevance)
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    assert not any(one._forward_hooks or one._forward_pre_hooks for one in module.modules())


@pytest.mark.parametrize("name", [*PROPAGATING[:2], *GRADIENT[:2]])
def test_all_that_is_offered_explains_and_nothing_else_does(name: str) -> None:
    image, explained = picture(32, channels=1), explainer(name)
    reading = readings(name, image)[0]
    for composite in explained.offer.composites:
        found = explained.explain(image, reading, composite)
        assert found.composite == composite
        assert found.relevance.shape == (1, 32, 32)
        assert found.relevance.isfinite().all()
        assert found.relevance.abs().sum() > 0
    for composite in {*COMPOSITES, *PATHS, "none"} - set(explained.offer.composites):
        with pytest.raises(UnknownComposite, match=r"there are .*integrated_gradients"):
            explained.explain(image, reading, composite)


@pytest.mark.parametrize(
    ("name", "default", "words"),
    [
        ("timm/test_resnet", "epsilon_plus_flat", "a rule for every operation"),
        ("torchvision/mobilenet_v2", "integrated_gradients", "grouped"),
        ("timm/test_vit", "integrated_gradients", "attention"),
        ("timm/test_efficientnet", "integrated_gradients", "SiLU"),
        ("torchvision/mobilenet_v3_small", "integrated_gradients", "hard swish"),
    ],
)
def test_the_table_says_what_fits_and_why(name: str, default: str, words: str) -> None:
    offer = explains(built(name), preprocessing(name).size)
    assert offer.default == default
    assert words in offer.why
    assert set(offer.conserving) < set(offer.composites)
    assert offer.shown()["composites"] == list(offer.composites)
    assert explainer(name).offer == offer


@pytest.mark.parametrize("name", PROPAGATING)
def test_a_private_copy_computes_the_same_without_normalisation(name: str) -> None:
    module = built(name)
    private = private_network(module, flow_of(module, 32))
    assert not any(isinstance(one, nn.BatchNorm2d) for one in private.modules())
    prepared = prepare(preprocessing(name), picture(32)[None])
    torch.testing.assert_close(private(prepared), module(prepared), rtol=1e-3, atol=1e-4)


def test_relevance_in_a_linear_and_rectifying_network_is_gradient_times_input() -> None:
    """LRP-0 is so wherever there are no biases."""
    torch.manual_seed(2)
    module = TwoDense()
    explained, image = by_hand(module), picture(16)
    found = explained.explain(image, OwnLogit(1), "epsilon_plus")
    given = (image[None] / 255).requires_grad_(True)
    module(given)[0, 1].backward()
    assert given.grad is not None
    torch.testing.assert_close(found.relevance, (given.grad * given.detach())[0], rtol=1e-3, atol=1e-5)
    times = explained.explain(image, OwnLogit(1), "gradient_times_input")
    torch.testing.assert_close(times.relevance, found.relevance, rtol=1e-3, atol=1e-5)


def test_what_a_bias_alone_drives_gives_its_relevance_evenly() -> None:
    """Place by place and unit by unit, in float64."""
    torch.manual_seed(3)
    module = Averaged()
    image = picture(16)
    found = by_hand(module).explain(image, OwnLogit(2), "epsilon_plus")
    x, weight = image.double() / 255, module.conv.weight.detach().double()
    active = F.relu(module.conv(image[None] / 255))[0].double().detach()  # (5, 16, 16)
    shared = active / 256 * module.classifier.weight[2].detach().double().view(-1, 1, 1)
    expected = torch.zeros(3, 18, 18, dtype=torch.float64)
    padded, inside = F.pad(x, (1, 1, 1, 1)), F.pad(torch.ones_like(x), (1, 1, 1, 1))
    for unit in range(5):
        for row in range(16):
            for column in range(16):
                at = (slice(None), slice(row, row + 3), slice(column, column + 3))
                parts = weight[unit].clamp_min(0) * padded[at]
                parts = parts if parts.sum() > 1e-6 else inside[at]
                expected[at] += shared[unit, row, column] * parts / parts.sum()
    torch.testing.assert_close(found.relevance.double(), expected[:, 1:-1, 1:-1], rtol=1e-4, atol=1e-6)
    assert float(found.relevance.sum()) == pytest.approx(found.logit, rel=1e-4)


def test_relevance_of_a_resized_image_belongs_to_its_own_pixels() -> None:
    torch.manual_seed(4)
    explained = by_hand(Averaged())
    for image in (picture(9), picture(40), picture(33, channels=1)):
        found = explained.explain(image, OwnLogit(0), "epsilon_plus_flat")
        assert found.relevance.shape == image.shape
        assert found.total == pytest.approx(found.logit, rel=1e-4)


@pytest.mark.parametrize("name", ["timm/test_vit", "timm/test_efficientnet"])
def test_integrated_gradients_are_those_of_a_plain_loop(name: str) -> None:
    image = picture(preprocessing(name).size)
    reading = readings(name, image)[1]
    found = explainer(name).explain(image, reading, "integrated_gradients")
    about, module = preprocessing(name), copy.deepcopy(built(name))
    assert isinstance(reading, OwnLogit)
    start = (torch.tensor(about.mean) * 255).view(3, 1, 1).expand(image.shape)
    total = torch.zeros(image.shape)
    for step in range(STEPS):
        at = (start + (step + 0.5) / STEPS * (image - start)).requires_grad_(True)
        module(prepare(about, at[None]))[0, reading.index].backward()
        assert at.grad is not None
        total += at.grad * (image - start) / STEPS
    torch.testing.assert_close(found.relevance, total, rtol=1e-2, atol=float(total.abs().max()) * 1e-3)
    with torch.no_grad():
        ends = [float(module(prepare(about, one[None].float()))[0, reading.index]) for one in (image, start)]
    assert found.goal == pytest.approx(ends[0] - ends[1], abs=1e-4)
    assert found.lost is not None
    assert abs(found.total - (ends[0] - ends[1])) <= 0.01 * float(found.relevance.abs().sum())


def test_smooth_gradients_repeat_and_draw_nothing_of_others() -> None:
    name, image = "timm/test_efficientnet", picture(32)
    reading, explained = readings("timm/test_efficientnet", image)[1], explainer(name)
    state = torch.random.get_rng_state()
    found = explained.explain(image, reading, "smooth_gradients")
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(explainer(name).explain(image, reading, "smooth_gradients").relevance, found.relevance)
    assert found.goal is None
    assert found.lost is None
    assert SAMPLES == 20
    even = torch.full((3, 32, 32), 90, dtype=torch.uint8)  # without a range there is no noise
    smooth = explained.explain(even, reading, "smooth_gradients").relevance
    times = explained.explain(even, reading, "gradient_times_input").relevance
    torch.testing.assert_close(smooth * 90 / 255, times, rtol=1e-3, atol=1e-6)


def test_guided_gradients_pass_where_both_signs_are_positive() -> None:
    torch.manual_seed(5)
    module, image = TwoDense(), picture(16)
    found = by_hand(module).explain(image, OwnLogit(3), "guided_backprop")
    x = image.flatten().float() / 255
    carried = module.classifier.weight[3].clamp_min(0) * ((module.hidden.weight @ x) > 0)
    torch.testing.assert_close(found.relevance.flatten(), carried @ module.hidden.weight, rtol=1e-4, atol=1e-6)


def test_what_was_carried_to_pooled_levels_is_carried_on() -> None:
    """A linear function of averages over the whole map is one of averages over cells."""
    name, image = "timm/test_resnet", picture(32)
    found = seen(name, image)
    weights = [torch.randn(level.shape[1], generator=torch.Generator().manual_seed(6)) for level in found.levels[2:]]
    none = (None,) * 2
    linear = LinearReading((*none, *weights))

    def pool(level: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(level, 2)

    slopes = [weight.view(1, -1, 1, 1).expand(1, -1, 2, 2) / 4 for weight in weights]
    parts = [pool(level) * slope for level, slope in zip(found.levels[2:], slopes, strict=True)]
    number = float(linear.logit(found))
    assert float(torch.cat([part.flatten() for part in parts]).sum()) == pytest.approx(number, rel=1e-4)
    explained = explainer(name)
    for composite, carried in (("epsilon_plus", parts), ("gradient_times_input", slopes)):
        pooled = PooledReading(number, pool, (*none, *carried))
        one, other = (explained.explain(image, reading, composite) for reading in (linear, pooled))
        assert one.logit == pytest.approx(other.logit, rel=1e-4)
        if composite == "epsilon_plus":
            assert other.total == pytest.approx(number, rel=1e-3)
        near = float(one.relevance.abs().max()) / 50
        torch.testing.assert_close(one.relevance, other.relevance, rtol=1e-2, atol=near)


def test_averages_share_by_magnitude() -> None:
    values = torch.tensor([[[[1.0, -3.0, 0.0, 0.0], [2.0, 2.0, 0.0, 0.0]]]])
    shared = shared_by_magnitude(values, lambda given: F.avg_pool2d(given, 2), torch.tensor([[[[8.0, 4.0]]]]))
    torch.testing.assert_close(shared, torch.tensor([[[[1.0, 3.0, 1.0, 1.0], [2.0, 2.0, 1.0, 1.0]]]]))


def test_heatmaps_in_many_threads_are_those_of_one() -> None:
    name, image = "timm/test_resnet", picture(32)
    reading, composites = readings(name, image)[0], ("epsilon_plus", "guided_backprop", "gradient_times_input")
    alone = {one: explainer(name).explain(image, reading, one).relevance for one in composites}
    shared = explainer(name)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda one: (one, shared.explain(image, reading, one).relevance), composites * 3))
    assert all(torch.equal(relevance, alone[one]) for one, relevance in found)
    copied = copy.deepcopy(shared)
    assert torch.equal(copied.explain(image, reading, "epsilon_plus").relevance, alone["epsilon_plus"])


def test_a_normalisation_that_follows_no_convolution_is_told() -> None:
    name = "torchvision/densenet121"
    explained = PretrainedExplainer(built(name), preprocessing(name), levels(name)[:1], "classifier")
    assert "batch normalisation that follows no convolution" in explained.offer.why
    image = picture(32)
    assert explained.explain(image, OwnLogit(0), "gradient_times_input").relevance.isfinite().all()
