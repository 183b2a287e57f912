"""Settings of EideticNet, the default method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from engram.config.base import MethodSettings

Reads = Literal["all", "selected", "commons"]
Labels = Literal["joined", "apart"]


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
    detectors over each task's own features, whose negatives are the images of all later tasks. Answers that are staged
    go by all three, and have no choice."""

    reads: Reads | None = None
    """What a task's units read of earlier ones: `all`, as the paper has it, so that every image is answered by every
    task; `selected`, those that have earned it; `commons`, none. By default selected, or all where images are kept."""
    closure: float | None = Field(default=None, ge=1, le=64)
    """Multiply-adds that an answer of a task may take, in multiples of those of its own units if they read nothing; by
    default 2."""
    contenders: Literal["all"] | int | None = None
    """Tasks whose networks are run at most for an image that no task is clearly ahead for; by default 2."""
    negatives: int | None = Field(default=None, ge=0, le=64)
    """Earlier tasks at most whose detectors learn from a new task's images; by default 4."""
    labels: Labels | None = None
    """Whether classes of one name in several tasks are one label of the answer (`joined`, the default) or several."""

    staged_names: ClassVar[tuple[str, ...]] = ("closure", "contenders", "negatives", "labels")
    """Fields that only models have whose answers are staged."""
    later_names: ClassVar[tuple[str, ...]] = ("reads", *staged_names)
    """Fields that only recipe 3 has."""

    def of_recipe(self, recipe: int, retention: str) -> dict[str, Any]:
        """The fields as JSON, whole for a recipe; raises PydanticCustomError for what it does not have."""
        if recipe < 3:
            if given := [name for name in self.later_names if getattr(self, name) is not None]:
                raise PydanticCustomError("recipe", "{name} needs recipe 3", {"name": given[0]})
            return self.model_dump(mode="json", exclude=set(self.later_names))
        reads = self.reads or ("all" if retention == "data" else "selected")
        if retention == "data" and reads != "all":
            raise PydanticCustomError("reads", "a model that keeps images has a router, which reads all")
        found = {**self.model_dump(mode="json"), "reads": reads}
        if reads == "all":
            if given := [name for name in self.staged_names if found[name] is not None]:
                raise PydanticCustomError("reads", "{name} means nothing where a task reads all", {"name": given[0]})
            return {name: value for name, value in found.items() if name not in self.staged_names}
        if self.recognise_by != type(self).model_fields["recognise_by"].default:
            raise PydanticCustomError("reads", "recognise_by is a choice only where a task reads all")
        del found["recognise_by"]
        for name, default in (("closure", 2.0), ("contenders", 2), ("negatives", 4), ("labels", "joined")):
            found[name] = default if found[name] is None else found[name]
        return found

    @classmethod
    def without_later(cls, whole: Mapping[str, Any], retention: str) -> dict[str, Any]:
        """Settings of recipe 3 without those fields that only it has, as far as they are at their defaults."""
        default = cls().of_recipe(3, retention)
        return {
            name: value for name, value in whole.items() if name not in cls.later_names or value != default.get(name)
        }

    @field_validator("contenders", mode="before")
    @classmethod
    def _whole(cls, given: Any) -> Any:
        if given is not None and given != "all" and not (type(given) is int and 1 <= given <= 64):
            raise PydanticCustomError("contenders", "not `all`, nor a whole number from 1 to 64")
        return given

    @field_validator("recognise_by")
    @classmethod
    def _once(cls, parts: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(parts)) < len(parts):
            raise ValueError("each part is named once")
        return parts
