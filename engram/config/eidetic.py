"""Settings of EideticNet, the default method."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from engram.config.base import MethodSettings


class EideticSettings(MethodSettings):
    """EideticNet on blocks: how heads and recogniser work. Training and pruning are up to the options of each task.

    The parts can be left out one by one, so that what each is worth can be measured.
    """

    read_commons: bool = True
    """Whether a head also reads the commons, by a regression over the task's own images."""
    recognise_by: tuple[Literal["ridge", "densities", "chain"], ...] = Field(
        default=("ridge", "densities", "chain"), min_length=1
    )
    """What tasks are recognised by: ridge regression over the commons, the density of each task's images in them, and
    detectors over each task's own features, whose negatives are the images of all later tasks."""

    @field_validator("recognise_by")
    @classmethod
    def _once(cls, parts: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(parts)) < len(parts):
            raise ValueError("each part is named once")
        return parts
