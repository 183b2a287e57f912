"""Tests of the way from pixels to a network's input, beside the same written plainly."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional as F

from engram.nn.pretrained.preprocessing import Preprocessing, prepare

OWN = Preprocessing(size=32, interpolation="bicubic", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def noise(channels: int, height: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 2, (2, channels, height, width), dtype=torch.uint8, generator=generator) * 255


def test_each_channel_is_normalised_in_this_order() -> None:
    images = noise(3, 32, 32)
    found = prepare(OWN, images)
    for channel in range(3):
        share = images[:, channel].float() / 255
        plain = (share - torch.tensor(OWN.mean[channel])) / torch.tensor(OWN.std[channel])
        assert torch.equal(found[:, channel], plain)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_other_sizes_are_resized_and_clamped(mode: str) -> None:
    images = noise(3, 50, 41)
    found = prepare(OWN.model_copy(update={"interpolation": mode}), images)
    resized = F.interpolate(images.float(), size=(32, 32), mode=mode, align_corners=False, antialias=True)
    mean, std = torch.tensor(OWN.mean), torch.tensor(OWN.std)
    lowest, highest = (0 - mean) / std, (1 - mean) / std
    assert found.shape == (2, 3, 32, 32)
    for channel in range(3):
        plain = (resized[:, channel].clamp(0, 255) / 255 - OWN.mean[channel]) / OWN.std[channel]
        torch.testing.assert_close(found[:, channel], plain)
        assert bool((found[:, channel] >= lowest[channel]).all() and (found[:, channel] <= highest[channel]).all())
    assert bool(((resized < -1) | (resized > 256)).any()) == (mode == "bicubic"), "there is something to clamp"


def test_grey_is_repeated() -> None:
    grey = noise(1, 32, 32)
    assert torch.equal(prepare(OWN, grey), prepare(OWN, grey.repeat(1, 3, 1, 1)))


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": 8},
        {"size": 4096},
        {"std": (0.1, 0.0, 0.1)},
        {"mean": (float("nan"), 0.0, 0.0)},
        {"mean": (0.5,)},
        {"interpolation": "lanczos"},
        {"crop": 0},
        {"colour": 1},
    ],
)
def test_what_cannot_be_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Preprocessing.model_validate({**OWN.model_dump(), **wrong})
