"""Settings of Relevance Mapping Networks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from engram.config.base import MethodSettings

_Slope = Annotated[float, Field(gt=0, le=1e4)]


class RmnSettings(MethodSettings):
    """Relevance mapping networks (Kaushik et al. 2021): one network, and for each task a map of the weights it uses.

    `paper` is what its supplement says of MNIST (rates of 2e-3, to be taken with 250 epochs of batches of 128), and
    `paper-cifar` of CIFAR-100 in ten tasks (weights at 1e-3, maps at 1e-2). Weights learn at the rate of the task's
    options. The paper fixes what has settled at 1 and rounds whatever has not, so that an old answer may still move;
    by default everything that a rounded map uses is fixed, and none can.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {
            "map_rate": 2e-3,
            "prune_below": 0.05,
            "fixed": "settled",
            "room": 1.0,
            "recognition": "maximum",
            "sparsity": 1e-3,
            "overlap": 1e-3,
        },
        "paper-cifar": {
            "map_rate": 1e-2,
            "prune_below": 0.05,
            "fixed": "settled",
            "room": 1.0,
            "recognition": "maximum",
            "sparsity": 1e-3,
            "overlap": 1e-3,
        },
    }

    fixed: Literal["rounded", "settled"] = "rounded"
    """Which weights never move again after a task: all that its rounded map uses, so that its answers are exact for
    ever; or those whose relevance has settled at 1, as published, so that they are not."""
    settled_at: float = Field(default=0.95, gt=0.5, le=1)
    """The relevance from which a weight has settled, where `fixed` asks for it."""
    map_rate: float = Field(default=1e-2, gt=0, le=10)
    """Peak learning rate of the maps; that of the weights is in the task's options."""
    map_mean: float = Field(default=0.7, ge=0, le=1)
    """Relevance that weights start with on average; drawn from a Gaussian, clipped to 0 and 1."""
    map_spread: float = Field(default=0.15, ge=0, le=1)
    """Its standard deviation."""
    sharpness: tuple[_Slope, _Slope] = (5.0, 100.0)
    """The slope of the rounding, at the first step and at the last; above 80 it hardly differs from rounding."""
    prune_below: float = Field(default=0.05, ge=0, lt=0.5)
    """Relevance under which a weight is of no use to the task, and is 0 for the rest of its training."""
    sparsity: float = Field(default=0.0, ge=0, le=1000)
    """Weight of the mean relevance in the loss: fewer weights for each task."""
    overlap: float = Field(default=0.0, ge=0, le=1000)
    """Weight of the mean relevance of weights that earlier tasks use."""
    noise: float = Field(default=0.01, ge=0, le=1000)
    """Weight of the mean squared logit for Gaussian noise, which every map learns to answer with 0."""
    room: float = Field(default=0.25, gt=0, le=1)
    """Units of the network as a share of the budget. Tasks divide weights, not units: a network with the units of two
    tasks can hold many."""
    recognition: Literal["recogniser", "calibrated", "maximum"] = "recogniser"
    """What recognises the task: the product's recogniser, over the commons and the features of each pass; each pass's
    soft maximum, standardised by the task's held-out images; or the plain maximum over all passes, as published."""
