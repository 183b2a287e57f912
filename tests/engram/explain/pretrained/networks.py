"""Small networks to be explained: of libraries, with random weights, and written by hand."""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engram.config.backbones import Level, Preprocessing
from engram.explain.pretrained.explainer import PretrainedExplainer
from engram.nn.pretrained.architectures import architecture
from engram.nn.pretrained.modes import DefinedAttention
from engram.nn.pretrained.preprocessing import prepare
from engram.nn.pretrained.taps import Seen, Taps

SIDES = {"timm/test_vit": 160}
"""Sides of images for networks that take no others; the rest take 32."""
PLAIN = Preprocessing(size=16, mean=(0, 0, 0), std=(1, 1, 1))


class TwoDense(nn.Module):
    """Two dense layers without biases."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(3 * 16 * 16, 12, bias=False)
        self.classifier = nn.Linear(12, 4, bias=False)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, 16, 16) -> (B, 4)."""
        found: Tensor = self.classifier(F.relu(self.hidden(image.flatten(1))))
        return found


class Averaged(nn.Module):
    """One convolution whose units are mostly driven by their bias, averaged by a function."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3, padding=1)
        self.act = nn.ReLU(inplace=True)
        self.classifier = nn.Linear(5, 4, bias=False)
        nn.init.constant_(self.conv.bias, 1.0)  # type: ignore[arg-type]  # it has a bias
        with torch.no_grad():
            self.conv.weight[:2] = -self.conv.weight[:2].abs()  # nothing ever speaks for these two

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, 16, 16) -> (B, 4)."""
        found: Tensor = self.classifier(self.act(self.conv(image)).mean((2, 3)))
        return found


@cache
def built(name: str) -> nn.Module:
    """A network of a library with the same random weights whenever it is asked for."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = architecture(name).build({"num_classes": 10}).eval().requires_grad_(False)
        for one in module.modules():
            if isinstance(one, nn.BatchNorm2d):
                assert one.running_mean is not None
                assert one.running_var is not None
                one.running_mean.normal_(0, 0.2)
                one.running_var.uniform_(0.5, 1.5)
                one.weight.uniform_(0.5, 1.5)
                one.bias.normal_(0, 0.2)
    return module


def preprocessing(name: str) -> Preprocessing:
    return Preprocessing(size=SIDES.get(name, 32), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def levels(name: str) -> list[Level]:
    """As an inspection finds them, but for numbers that no heatmap needs."""
    places = architecture(name).places(built(name))
    return [
        Level(name=place.name, channels=1, reduction=1, layout=place.layout, prefix=place.prefix) for place in places
    ]


def explainer(name: str) -> PretrainedExplainer:
    kind = architecture(name)
    return PretrainedExplainer(built(name), preprocessing(name), levels(name), kind.classifier(built(name)))


def by_hand(module: nn.Module) -> PretrainedExplainer:
    """The explainer of a network that is written here, whose level is its first layer."""
    first = next(name for name, _ in module.named_children())
    return PretrainedExplainer(
        module.eval().requires_grad_(False), PLAIN, [Level(name=first, channels=1, reduction=1)], "classifier"
    )


@torch.no_grad()
def seen(name: str, image: Tensor) -> Seen:
    """What a network sees in an image (C, H, W) uint8, without any explainer."""
    with torch.random.fork_rng(), DefinedAttention():
        module, kind = built.__wrapped__(name), architecture(name)
        taps = Taps(module, kind.places(module), kind.classifier(module))
        return taps.look(prepare(preprocessing(name), image[None]))


def picture(side: int, channels: int = 3, seed: int = 0) -> Tensor:
    """A smooth image (C, side, side) uint8."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, channels, 5, 5, generator=generator)
    return F.interpolate(coarse, (side, side), mode="bilinear").mul(255).to(torch.uint8)[0]
