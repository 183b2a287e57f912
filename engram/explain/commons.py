"""Relevance propagation through the commons, from a logit to pixels."""

from __future__ import annotations

from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from engram.explain.grid_commons import GridRelevance, contributions, smooth_features
from engram.nn.commons import Commons
from engram.nn.commons.float_commons import FloatCommons
from engram.nn.commons.grid_commons import GridCommons

_TINY = torch.finfo(torch.float32).tiny


class CommonsRelevance:
    """Relevance of pixels for logits that read the commons, whose filters are put in order once."""

    def __init__(self, commons: Commons) -> None:
        self._commons = commons

    @cached_property
    def _grid(self) -> GridRelevance | None:
        return GridRelevance(self._commons) if isinstance(self._commons, GridCommons) else None

    @torch.no_grad()
    def conserved(self, image: Tensor, weight: Tensor, bias: Tensor, *, flat: bool) -> tuple[Tensor, float]:
        """The relevance (C, H, W) of pixels, and what it sums to: `weight @ features + bias`.

        Each feature has what it contributes to the sum; within its cell of the grid that goes to the places that
        respond, by how strongly they do; within a place's patch to pixels by the z+ rule, or evenly if `flat`. The
        local contrast counts as a constant, as LRP treats every normalisation.

        Parameters
        ----------
        image
            (1, C, H, W) float32 in [0, 1].
        weight, bias
            (F,) and (): how one logit reads the commons.
        """
        commons = self._commons
        if self._grid is None:
            assert isinstance(commons, FloatCommons), "there are commons on a grid, and those that are not"
            return _of_float(commons, image, weight, bias, flat=flat)
        assert isinstance(commons, GridCommons), "what is prepared is on a grid"
        pixels = commons.pixels(image)  # (1, h, w, C)
        relevance, logit = self._grid(pixels, weight, bias, flat=flat)  # (C, h, w)
        shrunk = pixels.permute(0, 3, 1, 2) / 255.0  # (1, C, h, w)
        whole, covered = torch.zeros_like(image), (..., *commons.covered(image))
        whole[covered] = _spread(commons.shrink, relevance[None], shrunk, image[covered], flat)
        return whole[0], logit

    def logit(self, image: Tensor, weight: Tensor, bias: Tensor) -> float:
        """`weight @ features + bias` of an image (1, C, H, W)."""
        return float(self._commons(image)[0] @ weight + bias)

    def gradient(self, image: Tensor, weight: Tensor) -> Tensor:
        """The gradient (C, H, W) of `weight @ features` by the pixels of an image (1, C, H, W)."""
        commons, given = self._commons, image.detach().clone().requires_grad_(True)
        with torch.enable_grad():
            if isinstance(commons, GridCommons):
                (carried,) = torch.autograd.grad(smooth_features(commons, given) @ weight, given)
            else:
                assert isinstance(commons, FloatCommons), "there are commons on a grid, and those that are not"
                # A root has no slope at zero; what does not respond has none to give.
                pooled = commons.pooled(commons.responses(commons.shrunk(given)), least=1e-12)
                (carried,) = torch.autograd.grad(pooled[0] @ weight, given)
        return carried[0].detach()


def _of_float(
    commons: FloatCommons, image: Tensor, weight: Tensor, bias: Tensor, *, flat: bool
) -> tuple[Tensor, float]:
    """As `CommonsRelevance.conserved`."""
    shrunk = commons.shrunk(image)  # (1, C, h, w)
    responses = commons.responses(shrunk)  # (1, 2 filters, H', W')
    features = commons.pooled(responses)[0]  # (F,)
    cells = contributions(features, weight, bias).view(1, -1, commons.grid, commons.grid)
    responses = responses.detach().requires_grad_(True)
    with torch.enable_grad():
        averages = F.adaptive_avg_pool2d(responses, commons.grid)  # (1, 2 filters, grid, grid)
        (shares,) = torch.autograd.grad(averages, responses, cells / averages.detach().clamp_min(_TINY))
    placed = shares * responses.detach()  # (1, 2 filters, H', W'): proportional within each cell
    filters = commons.filters.weight
    if flat:
        kernel = torch.ones(1, *filters.shape[1:], device=filters.device)
        relevance = F.conv_transpose2d(placed.sum(1, keepdim=True), kernel) / kernel.numel()
    else:
        positive = torch.cat([filters.clamp_min(0), (-filters).clamp_min(0)])  # (2 filters, C, patch, patch)
        received = F.conv2d(shrunk, positive)
        relevance = shrunk * F.conv_transpose2d(placed / received.clamp_min(1e-9), positive)
    return _spread(commons.shrink, relevance, shrunk, image, flat)[0], float(features @ weight + bias)


def _spread(side: int, relevance: Tensor, shrunk: Tensor, image: Tensor, flat: bool) -> Tensor:
    """Relevance of shrunken pixels, given to the pixels that they average."""
    if side == 1:
        return relevance
    size = image.shape[2:]
    parts = relevance / side**2 if flat else relevance / (shrunk * side**2).clamp_min(_TINY)
    wide = F.interpolate(parts, scale_factor=float(side), mode="nearest")
    padded = F.pad(wide, (0, size[1] - wide.shape[3], 0, size[0] - wide.shape[2]))
    return padded if flat else padded * image
