"""Gradients averaged along a path to an image, or around it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from engram.config.backbones import Preprocessing
from engram.explain.pretrained.reading import Explained
from engram.nn.pretrained.modes import DefinedAttention
from engram.nn.pretrained.preprocessing import prepare
from engram.nn.pretrained.taps import Taps

STEPS = 20
"""Gradients that are averaged along a path."""
SAMPLES = 20
"""Noisy images whose gradients are averaged."""
NOISE = 0.1
"""Deviation of the noise, as a share of the range of an image's values."""

Slope = Callable[[Tensor], tuple[float, Tensor]]
"""For pixels (1, C, H, W) in [0, 1] a number, and its gradient by them."""


class PixelLogit(nn.Module):
    """A number that is read of a network, as a function of pixels."""

    def __init__(self, taps: Taps, preprocessing: Preprocessing, reading: Explained) -> None:
        super().__init__()
        self._taps = taps
        self._preprocessing = preprocessing
        self._reading = reading

    def forward(self, pixels: Tensor) -> Tensor:
        """(1, C, H, W) float32 in [0, 1] -> (1, 1)."""
        with DefinedAttention():
            seen = self._taps.look(prepare(self._preprocessing, pixels * 255))
        return self._reading.logit(seen).view(1, 1)

    def slope(self, pixels: Tensor) -> tuple[float, Tensor]:
        """The number, and its gradient (1, C, H, W)."""
        from engram.explain.zennit_import import attribution

        with torch.enable_grad():
            number, gradient = attribution.Gradient(self, attr_output=torch.ones_like)(pixels.detach())
        return float(number.detach()), gradient.detach()


def even_image(preprocessing: Preprocessing, pixels: Tensor) -> Tensor:
    """The image (1, C, H, W) in [0, 1] that a network knows as zeros: the mean colour, or its grey, everywhere."""
    mean = torch.tensor(preprocessing.mean, device=pixels.device)
    colour = mean if pixels.shape[1] == 3 else mean.mean(0, keepdim=True)
    return colour.view(1, -1, 1, 1).expand(pixels.shape)


def integrated(slope: Slope, pixels: Tensor, start: Tensor) -> tuple[Tensor, float, float]:
    """Integrated gradients (Sundararajan, Taly and Yan 2017) from one image (1, C, H, W) in [0, 1] to another.

    The gradients are those in the middle of each step, so that the sum is that of the integral to second order.

    Returns
    -------
    Relevance (1, C, H, W), the number that is explained, and how far it is from that of the start.
    """
    whole = torch.zeros_like(pixels)
    for step in range(STEPS):
        whole += slope(start + (step + 0.5) / STEPS * (pixels - start))[1]
    found, before = slope(pixels)[0], slope(start)[0]
    return whole / STEPS * (pixels - start), found, found - before


def averaged_around(slope: Slope, pixels: Tensor, seed: int = 0) -> tuple[Tensor, float]:
    """SmoothGrad (Smilkov et al. 2017): the mean gradient (1, C, H, W) of noisy copies of an image, and the number.

    The noise is drawn on the CPU by a generator of its own.
    """
    generator = torch.Generator().manual_seed(seed)
    deviation = NOISE * float(pixels.max() - pixels.min())
    whole = torch.zeros_like(pixels)
    for _ in range(SAMPLES):
        noise = torch.randn(pixels.shape, generator=generator).to(pixels.device)
        whole += slope(pixels + deviation * noise)[1]
    return whole / SAMPLES, slope(pixels)[0]
