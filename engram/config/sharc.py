"""Settings of SHARC."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from engram.config.base import MethodSettings


class SharcSettings(MethodSettings):
    """Saliency-guided hidden associative replay: what is kept of each feature map, and how the rest is recalled.

    `paper` has the paper's values for answering without a task, `paper_task` those for a given task.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {"quantile": 0.5, "recall": "gaussian", "keep": "reservoir", "backbone": "classes"},
        "paper_task": {"quantile": 0.8, "recall": "hopfield", "keep": "reservoir", "backbone": "classes"},
    }

    backbone: Literal["classes", "rotations"] = "rotations"
    """What the backbone learns from the first task before it is frozen for ever: its classes, or also its images turned
    by 90, 180 and 270 degrees as classes of their own, for features that serve later tasks better."""
    saliency: Literal["gradient", "random"] = "gradient"
    """What orders the channels of a map: the mean gradient of the true logit, or chance (a control)."""
    quantile: float = Field(default=0.5, ge=0, lt=1)
    """Share of each map's channels that is dropped; with 0, whole maps are kept, which is plain replay of features. The
    smaller the memory, the more is worth dropping: 0.8 to 0.9 where only a few dozen whole maps would fit."""
    recall: Literal["gaussian", "hopfield", "none"] = "gaussian"
    """The memory that recalls dropped channels; with `none` they stay zero (a control)."""
    rank: int = Field(default=32, ge=1, le=1024)
    """Principal directions of the Gaussian memory; as many as there are channels keep the covariance whole."""
    beta: float = Field(default=100.0, gt=0, le=1e6)
    """Inverse temperature of Hopfield retrieval, over the patterns' mean squared length."""
    steps: int = Field(default=3, ge=1, le=100)
    """Updates of Hopfield retrieval."""
    values: Literal["uint8", "float16"] = "uint8"
    """How values of maps are stored."""
    memory_bytes: int = Field(default=2**20, ge=2**10, le=2**40)
    """Bytes for all sparse maps and the memory that completes them. When they are spent, every class gives up maps
    until all classes have as many."""
    keep: Literal["herding", "reservoir"] = "herding"
    """Which maps of a class stay: those whose mean is nearest to the class's, or a random sample."""
    heads: Literal["shared", "own"] = "shared"
    """Whether a given task is answered by the one head over all classes, which replay keeps changing, or by a head of
    its own that is frozen when it is learned: its answers are exact for ever."""
    recognise: Literal["head", "commons"] = "commons"
    """What finds the task: the head over all classes, or ridge scores over the commons, whose exact sums take
    `features ** 2 * 4` bytes a task."""

    @model_validator(mode="after")
    def _needs_its_memory(self) -> Self:
        if self.heads == "own" and self.recognise == "commons":
            raise ValueError('heads "own" and recognise "commons" leave nothing to replay for; choose recognise "head"')
        return self
