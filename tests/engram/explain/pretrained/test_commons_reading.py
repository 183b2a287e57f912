"""Tests of what heads and adapters read of pretrained commons: numbers, conservation, gradients."""

from __future__ import annotations

from functools import cache
from typing import cast

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from engram.explain.pretrained.commons_reading import CommonsReading, MapsReading, Together
from engram.explain.pretrained.explainer import PretrainedExplainer
from engram.nn.commons.pretrained_commons import PretrainedCommons
from engram.nn.commons.readings import Readings
from tests.engram.explain.pretrained.networks import picture
from tests.engram.nn.pretrained.drawn import drawn

NAMES = ("timm/test_resnet", "timm/test_vit")


@cache
def commons_of(name: str) -> PretrainedCommons:
    """Commons with scales as a fit would find them, but of few images."""
    arguments = {"num_classes": 5} | ({"img_size": 64} if "vit" in name else {})
    network = drawn(name, arguments, size=64)
    readings = Readings.of(network.description, "all", 4096)
    commons = PretrainedCommons(network.description, readings, lambda: network.file, adapters=True)
    seen = commons.network.look(torch.stack([picture(64, seed=seed) for seed in range(9, 17)]))
    raw, maps = readings.read(seen.levels, seen.features), readings.maps(seen.levels)
    cast(Tensor, commons.centres).copy_(raw.mean(0))
    cast(Tensor, commons.scales).copy_(1 / raw.std(0).clamp_min(1e-3))
    cast(Tensor, commons.map_centres).copy_(maps.mean((0, 2, 3)))
    cast(Tensor, commons.map_scales).copy_(1 / maps.std((0, 2, 3)).clamp_min(1e-3))
    return commons


def head(commons: PretrainedCommons, image: Tensor) -> tuple[CommonsReading, float]:
    """A random linear head, and its logit as the commons' own features give it."""
    weight = torch.randn(commons.features, generator=torch.Generator().manual_seed(1)) / commons.features
    bias = torch.tensor(0.2)
    return CommonsReading(commons, weight, bias), float(commons.of_bytes(image[None])[0] @ weight + bias)


def adapter(maps: Tensor) -> Tensor:
    """Some number, (), of maps in [0, 1] that is not linear in them."""
    weight = torch.randn(maps.shape[1], 3, generator=torch.Generator().manual_seed(2)) / maps.shape[1]
    return F.relu(torch.einsum("bchw,cn->bnhw", maps, weight)).mean()


def slope_of_adapter(maps: Tensor) -> tuple[float, Tensor]:
    given = maps.detach().requires_grad_(True)
    with torch.enable_grad():
        number = adapter(given)
    return float(number.detach()), torch.autograd.grad(number, given)[0]


@pytest.mark.parametrize("name", NAMES)
def test_a_head_s_logit_is_explained_by_every_composite(name: str) -> None:
    commons, image = commons_of(name), picture(64)
    reading, expected = head(commons, image)
    assert {one.kind for one in commons.readings.features} == {"classifier", "mean", "spread", "quarters"}
    explained = PretrainedExplainer.of(commons.network)
    for composite in explained.offer.composites:
        found = explained.explain(image, reading, composite)
        assert found.logit == pytest.approx(expected, rel=1e-2, abs=1e-3)  # the commons round
        assert found.relevance.isfinite().all()
        if composite in explained.offer.conserving and composite != "integrated_gradients":
            assert found.total == pytest.approx(found.logit, rel=1e-3)


def test_seeds_of_a_head_sum_to_its_logit_at_the_places_that_speak() -> None:
    commons, image = commons_of("timm/test_resnet"), picture(64)
    reading, _ = head(commons, image)
    seen = commons.network.look(image[None])
    seeds = reading.seeds(seen)
    assert all(start.shape == tensor.shape for tensor, start in seeds)
    total = sum(float(start.double().sum()) for _, start in seeds)
    assert total == pytest.approx(float(reading.logit(seen)), rel=1e-4)
    for one, (tensor, start) in zip(commons.readings.features, seeds, strict=True):
        if one.kind in ("mean", "quarters"):
            silent = (tensor == 0) & (tensor.abs().amax((2, 3), keepdim=True) > 0)
            if one.kind == "mean":
                assert not start[silent].any()


@pytest.mark.parametrize("name", NAMES)
def test_what_an_adapter_reads_is_carried_through_the_network(name: str) -> None:
    commons, image = commons_of(name), picture(64)
    seen = commons.network.look(image[None])
    reading = MapsReading(commons, slope_of_adapter)
    maps = commons.mapped(image[None])[1].float() / 255
    explained = PretrainedExplainer.of(commons.network)
    found = explained.explain(image, reading, "integrated_gradients")
    assert found.logit == pytest.approx(float(adapter(maps)), rel=1e-2)
    assert float(reading.logit(seen)) == pytest.approx(found.logit, rel=1e-4)
    assert found.goal is not None
    assert abs(found.total - found.goal) <= 0.05 * float(found.relevance.abs().sum())

    def carry(given: Tensor) -> tuple[float, Tensor]:
        number, slope = slope_of_adapter(given)
        return number, slope * given  # conserved, for a number without biases

    seeds = MapsReading(commons, carry).seeds(seen)
    total = sum(float(start.double().sum()) for _, start in seeds)
    assert total == pytest.approx(float(reading.logit(seen)), rel=1e-3)


def test_numbers_that_are_read_together_add_up() -> None:
    commons, image = commons_of("timm/test_resnet"), picture(64)
    one, other = head(commons, image)[0], MapsReading(commons, slope_of_adapter)
    explained = PretrainedExplainer.of(commons.network)
    for composite in ("epsilon_plus", "gradient_times_input"):
        parts = [explained.explain(image, reading, composite) for reading in (one, other)]
        both = explained.explain(image, Together((one, other)), composite)
        assert both.logit == pytest.approx(sum(part.logit for part in parts), rel=1e-4)
        summed = torch.stack([part.relevance for part in parts]).sum(0)
        torch.testing.assert_close(both.relevance, summed, rtol=1e-3, atol=float(summed.abs().max()) * 1e-3)
