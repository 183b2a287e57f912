"""Gradients averaged along a path to an image, or around it."""

from __future__ import annotations

from typing import Any

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


class PixelLogit(nn.Module):
    """A number that is read of a network, as a function of pixels."""

    def __init__(self, taps: Taps, preprocessing: Preprocessing, reading: Explained) -> None:
        super().__init__()
        self._taps = taps
        self._preprocessing = preprocessing
        self._reading = reading

    def forward(self, pixels: Tensor) -> Tensor:
        """(1, C, H, W) float32 in 0..255 -> (1, 1)."""
        with DefinedAttention():
            seen = self._taps.look(prepare(self._preprocessing, pixels))
        return self._reading.logit(seen).view(1, 1)

    def even(self, image: Tensor) -> Tensor:
        """The image (1, C, H, W) that the network knows as zeros: the mean colour, or grey, everywhere."""
        mean = torch.tensor(self._preprocessing.mean, device=image.device) * 255
        colour = mean if image.shape[1] == 3 else mean.mean(0, keepdim=True)
        return colour.view(1, -1, 1, 1).expand(image.shape)


def integrated(logit: PixelLogit, image: Tensor) -> tuple[Tensor, float, float]:
    """Integrated gradients (Sundararajan, Taly and Yan 2017) from the even image to an image (1, C, H, W) uint8.

    The gradients are those in the middle of each step, so that the sum is that of the integral to second order.

    Returns
    -------
    Relevance (C, H, W), the number that is explained, and how far it is from that of the even image.
    """
    pixels, start = image.float(), logit.even(image)
    gradient = _gradient(logit)
    whole = torch.zeros_like(pixels)
    for step in range(STEPS):
        _, slope = gradient(start + (step + 0.5) / STEPS * (pixels - start))
        whole += slope
    with torch.no_grad():
        found, before = float(logit(pixels)), float(logit(start))
    return (whole / STEPS * (pixels - start))[0].cpu(), found, found - before


def averaged_around(logit: PixelLogit, image: Tensor, seed: int = 0) -> tuple[Tensor, float]:
    """SmoothGrad (Smilkov et al. 2017): the mean gradient (C, H, W) by pixels in [0, 1] of noisy copies of an image,
    and the number that is explained; the noise is drawn on the CPU by a generator of its own."""
    pixels = image.float()
    generator = torch.Generator().manual_seed(seed)
    deviation = NOISE * float(pixels.max() - pixels.min())
    gradient = _gradient(logit)
    whole = torch.zeros_like(pixels)
    for _ in range(SAMPLES):
        noise = torch.randn(pixels.shape, generator=generator).to(pixels.device)
        _, slope = gradient(pixels + deviation * noise)
        whole += slope
    with torch.no_grad():
        found = float(logit(pixels))
    return (whole / SAMPLES * 255)[0].cpu(), found


def _gradient(logit: PixelLogit) -> Any:
    """zennit's own: called with an image, it gives the number and its gradient."""
    from engram.explain.zennit_import import attribution

    return attribution.Gradient(logit, attr_output=torch.ones_like)
