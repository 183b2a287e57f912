"""Options of learning one task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import AliasChoices, Field

from engram.config.base import Frozen

Schedule = Literal["cosine", "constant"]


class LearnOptions(Frozen):
    """How one task is learned; the defaults suit small images on a laptop."""

    deprecated_names: ClassVar[Mapping[str, str]] = {
        "least_accuracy": "min_accuracy",
        "least_recognised": "min_recognised",
    }

    unsaid_names: ClassVar[frozenset[str]] = frozenset({"min_recall", "mixed_precision"})
    """Fields that earlier releases do not know: where they have their default, they are not stored."""

    def stored(self) -> dict[str, Any]:
        """The fields as JSON, such that every release reads what it could have written itself."""
        found = super().stored()
        defaults = {name: type(self).model_fields[name].default for name in self.unsaid_names}
        return {name: value for name, value in found.items() if name not in defaults or value != defaults[name]}

    epochs: int = Field(default=5, ge=1, le=1000)
    """At most so many passes over the images before pruning."""
    patience: int = Field(default=2, ge=1, le=1000)
    """Epochs without a better held-out loss after which the plateau is reached."""
    batch_size: int = Field(default=128, ge=2, le=4096)
    """Images per step; small tasks take fewer, so that an epoch has about twenty steps."""
    optimiser: Literal["sgd", "adam", "adamw"] = "adamw"
    learning_rate: float = Field(default=2e-3, gt=0, le=10)
    """Highest of the schedule."""
    schedule: Schedule = "cosine"
    """Warmed up, then annealed by a cosine; or the same for every step, as in most of the papers."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """For `sgd`."""
    weight_decay: float = Field(default=1e-2, ge=0, le=1)
    """Decoupled for `adamw`."""
    mixed_precision: bool = False
    """Whether passes of training, forward and backward, multiply in bfloat16 (`torch.autocast`); weights, optimiser and
    losses stay in float32, as does all that is measured, summed, calibrated or certified. It needs networks to train,
    of a model whose answers are in stages (`eidetic`, not `reads: all`), and a processor or GPU that has bfloat16."""
    label_smoothing: float = Field(default=0.05, ge=0, lt=1)
    augment: Literal["none", "shift", "shift+flip"] = "shift"
    """Random translations by up to an eighth of the image, or a quarter where a class has fewer than half the images of
    the largest; and mirror images where they mean the same."""
    held_out: float = Field(default=0.1, gt=0, lt=0.9)
    """Share of the images that plateau, pruning and recognition are judged by, where no `val/` was given."""
    score: Literal["l1", "l2", "taylor", "lrp", "random"] = "taylor"
    """What orders the units for pruning."""
    prune: bool = True
    """Whether units that the task can do without are given back."""
    tolerance: float = Field(default=0.002, ge=0, le=1)
    """Held-out accuracy that pruning may cost, as a fraction."""
    rounds: int = Field(default=2, ge=1, le=20)
    """Searches for the smallest set, each followed by a recovery."""
    recovery_epochs: int = Field(default=1, ge=0, le=1000)
    """Passes of fine-tuning after each search; of models by `learning` 2 or 3 each goes over 2,048 images at most."""
    floor: float = Field(default=0.05, gt=0, le=1)
    """Share of each layer's units that is kept whatever their score."""
    min_accuracy: float = Field(
        default=0.0, ge=0, le=1, validation_alias=AliasChoices("min_accuracy", "least_accuracy")
    )
    """Held-out accuracy, the task given, under which learning fails and nothing is published."""
    min_recall: float = Field(default=0.0, ge=0, le=1)
    """Recall of the worst class on held-out images, the task given, under which learning fails and nothing is
    published. Refused before training where a class would have fewer than 20 of them, which could not tell it."""
    min_recognised: float = Field(
        default=0.0, ge=0, le=1, validation_alias=AliasChoices("min_recognised", "least_recognised")
    )
    """Share of the held-out images given to this task, among all tasks so far, under which learning fails."""
    max_unreadable: float = Field(default=0.05, ge=0, lt=1)
    """Share of an upload's images that may be unreadable before the task fails."""
    max_seconds: float | None = Field(default=None, gt=0)
    """Wall-clock time after which a job fails, where a worker learns the task."""
    seed: int = Field(default=0, ge=0, lt=2**63)
