"""Channel saliency of feature maps, and the masks of the salient channels."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor


def saliency(maps: Tensor, labels: Tensor, classifier: Callable[[Tensor], Tensor]) -> Tensor:
    """The mean over all places of the gradient of the true logit (SHARC, arXiv 2310.04334; after Grad-CAM).

    Parameters
    ----------
    maps
        (B, channels, places).
    labels
        (B,): the classifier's output that is differentiated.
    classifier
        From maps to logits (B, classes), each row depending on its own map alone.

    Returns
    -------
    (B, channels), with sign: a channel that speaks against the class is the least salient of all.
    """
    with torch.enable_grad():
        watched = maps.detach().requires_grad_(True)
        logits = classifier(watched)  # (B, classes)
        (gradient,) = torch.autograd.grad(logits.gather(1, labels[:, None]).sum(), watched)
    return gradient.mean(2)


def kept_channels(channels: int, quantile: float) -> int:
    """How many channels of a map stay when the share `quantile` of them is dropped; at least one."""
    return max(1, channels - math.floor(quantile * channels + 1e-9))


def mask(scores: Tensor, quantile: float) -> Tensor:
    """(B, channels) -> bool (B, channels): the channels not under the quantile; ties go to the first.

    Every row keeps the same number, so that maps take the same room.
    """
    count = kept_channels(scores.shape[1], quantile)
    best = scores.sort(dim=1, descending=True, stable=True).indices[:, :count]
    return torch.zeros_like(scores, dtype=torch.bool).scatter_(1, best, True)
