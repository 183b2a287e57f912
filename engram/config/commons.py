"""Definitions of the commons: banks of filters, networks that users bring, and several side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, PlainValidator, TypeAdapter, WrapValidator, model_validator
from pydantic_core import PydanticCustomError

from engram.config.backbones import BackboneDescription
from engram.config.base import Frozen
from engram.config.input_shape import InputShape


class ResolvedCommons(Frozen):
    """The commons as they are made, nothing left open; since recipe 3, one bank of several that stand side by side."""

    kind: Literal["smooth", "learned"]
    features: int
    patch: int
    grid: int
    stride: int = 1
    mirror: bool = False


class CommonsDefinition(Frozen):
    """Block 0: the fixed features that the task recogniser builds on."""

    kind: Literal["smooth", "learned"] | None = None
    """`smooth` filters are drawn when the model is created. `learned` ones are directions in which whitened patches of
    the first task's images cluster: better for photographs. By default learned for colour; for grey images smooth ones
    until recipe 2, since recipe 3 those of the dictionary `dead_leaves`.
    """
    features: int = Field(default=2048, ge=64, le=16384, multiple_of=32)
    """How many features. Before recipe 3, sums over them take `features ** 2 * 4` bytes per task; since then they are
    whole numbers in as few bytes as each needs, about half of that, and as much again for all tasks together."""
    patch: int | None = Field(default=None, ge=2, le=16)
    """Side of the square filters, in pixels; by default 8 for smooth and 6 for learned filters. Since recipe 3, learned
    ones are by default 10 for grey images, and for small images no more than a third of their side, and one."""
    mirror: bool = False
    """Whether every filter stands beside its mirror image and their features are added, so that a mirrored picture has
    the same features to the bit: for pictures that mean the same when mirrored. Needs recipe 3, as what follows does.
    """
    stride: int | None = Field(default=None, ge=1, le=4)
    """Pixels from one patch to the next."""
    grid: int | None = Field(default=None, ge=1, le=8)
    """Cells a side over which responses are averaged."""

    dictionary: Literal["dead_leaves"] | None = None
    """What filters are learned from in place of the first task's images, so that it may be of a single class and tells
    the filters nothing: `dead_leaves`, drawn ellipses that hide one another, with the edges of photographs."""

    preset: Literal["fast", "default", "large", "largest"] | None = None
    """A name for several of these fields, over which what is given wins: `fast` takes a patch at every second pixel;
    `large` has 4096 and `largest` 8192 features, whose sums take four and sixteen times the room."""

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "fast": {"stride": 2},
        "default": {},
        "large": {"features": 4096},
        "largest": {"features": 8192},
    }
    later_names: ClassVar[tuple[str, ...]] = ("mirror", "stride", "grid", "dictionary", "preset")
    """Fields that only recipe 3 has; what says nothing is not stored."""

    @model_validator(mode="before")
    @classmethod
    def _expand(cls, given: Any) -> Any:
        name = given.get("preset") if isinstance(given, Mapping) else None
        return {**cls.presets[name], **given} if isinstance(name, str) and name in cls.presets else given

    def resolved(self, shape: InputShape) -> ResolvedCommons:
        """With the defaults for images of this shape; responses are averaged over a grid of `grid` cells a side."""
        kind = self.kind or ("learned" if shape.channels == 3 else "smooth")
        patch, grid = (8, 4) if kind == "smooth" else (6, 2)
        return ResolvedCommons(kind=kind, features=self.features, patch=self.patch or patch, grid=grid)

    def banks(self, shape: InputShape) -> tuple[ResolvedCommons, ...]:
        """The banks of filters of recipe 3, with the defaults for images of this shape.

        Raises
        ------
        PydanticCustomError
            where patches do not lie as they do in the mirror.
        """
        stride, height, width = self.stride or 1, shape.height // shape.shrink, shape.width // shape.shrink
        found = self.model_copy(update={"kind": self.kind or "learned"}).resolved(shape)
        if found.kind == "learned" and self.patch is None:
            usual = 6 if shape.channels == 3 else 10
            found = found.model_copy(update={"patch": min(usual, min(height, width) // 3 + 1)})
        if self.dictionary and found.kind != "learned":
            raise PydanticCustomError("dictionary", "{kind} filters are drawn: no dictionary", {"kind": found.kind})
        largest = min(found.patch, height, width)
        fitting = [side for side in range(largest, 1, -1) if (width - side) % stride % 2 == 0 or not self.mirror]
        patch = largest if self.patch else fitting[0]
        # What no patch covers is left out at both ends alike.
        if 2 * (self.grid or found.grid) ** 2 > found.features:
            raise PydanticCustomError("grid", "has more cells than there are features")
        if patch not in fitting:
            raise PydanticCustomError("mirror", "mirror needs patches that leave an even number of columns over")
        if self.mirror and shape.width % shape.shrink % 2:
            raise PydanticCustomError(
                "mirror", "mirror needs a width that leaves an even number over {shrink}", {"shrink": shape.shrink}
            )
        changes = {"patch": patch, "grid": self.grid or found.grid, "stride": stride, "mirror": self.mirror}
        return (found.model_copy(update=changes),)

    def learned_from(self, shape: InputShape) -> str | None:
        """The dictionary that filters of recipe 3 come from, if not from the first task's images."""
        return self.dictionary or ("dead_leaves" if self.kind is None and shape.channels == 1 else None)

    def stored(self) -> dict[str, Any]:
        """The fields as JSON; what an earlier release could have written is written as it would have been."""
        default = {name: type(self).model_fields[name].default for name in self.later_names}
        return {name: value for name, value in super().stored().items() if default.get(name, self) != value}

    @property
    def of_recipe_3(self) -> tuple[str, ...]:
        """The fields given that only recipe 3 has."""
        return tuple(name for name in self.later_names if name in self.stored())


class PretrainedDefinition(Frozen):
    """A network that a user brought, computed once for every image, and never changed."""

    kind: Literal["pretrained"]
    backbone: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")
    """The name that it is stored under."""
    size: int | None = Field(default=None, ge=16, le=1024)
    """Side of the square that it is given, in pixels; by default as it was stored."""
    levels: Literal["all", "last"] = "all"
    """Which of its levels the task recogniser reads: all, or only what its own classifier would read."""
    features: int = Field(default=2560, ge=64, le=16384)
    """How many features at most: means over each level, then how they spread, then means over quarters of the image,
    the coarsest levels first, as far as they fit."""
    together: bool = False
    """Whether one regression reads its features and those of the network before it in the list, which may be the same
    one at another size, in place of a regression each: that finds what only both tell, for sums of all by all."""
    source: BackboneDescription | None = None
    """What was stored under the name when the model was created; filled in then."""

    def stored(self) -> dict[str, Any]:
        """The fields as JSON; what an earlier release could have written is written as it would have been."""
        found = {**super().stored(), "source": None if self.source is None else self.source.stored()}
        if not self.together:
            del found["together"]
        return found


CommonsPart = CommonsDefinition | PretrainedDefinition

MOST_PARTS = 4
MOST_TOGETHER = 16384
"""Features that one regression reads at most."""


def _part(given: Any) -> CommonsPart:
    """One part, by its kind: the errors are those of that kind alone."""
    if isinstance(given, CommonsDefinition | PretrainedDefinition):
        return given
    kind = given.get("kind") if isinstance(given, Mapping) else None
    return (PretrainedDefinition if kind == "pretrained" else CommonsDefinition).model_validate(given)


_PARTS = TypeAdapter(Annotated[list[Annotated[Any, PlainValidator(_part)]], Field(min_length=1, max_length=MOST_PARTS)])


def _parts(given: Any, _: Any) -> CommonsPart | tuple[CommonsPart, ...]:
    """One part, or several; a list of one is that one."""
    if not isinstance(given, list | tuple):
        return _part(given)
    found: list[CommonsPart] = _PARTS.validate_python(list(given))
    return tuple(found) if len(found) > 1 else found[0]


def regressions(parts: Sequence[CommonsPart]) -> tuple[int, ...]:
    """How many of the commons each regression reads, in order; raises PydanticCustomError."""
    found: list[int] = []
    features = 0
    for before, part in zip((None, *parts), parts, strict=False):
        if not isinstance(part, PretrainedDefinition) or not part.together:
            found.append(1)
            features = part.features
            continue
        if not isinstance(before, PretrainedDefinition):
            raise PydanticCustomError("together", "together needs a pretrained network before it in the list")
        found[-1] += 1
        features += part.features
        if features > MOST_TOGETHER:
            raise PydanticCustomError(
                "together", "networks together have at most {most} features", {"most": MOST_TOGETHER}
            )
    return tuple(found)


CommonsChoice = Annotated[
    CommonsPart | tuple[CommonsPart, ...],
    WrapValidator(  # whose own errors, not those of a union, name what is wrong in the part that was meant
        _parts,
        json_schema_input_type=CommonsPart | Annotated[list[CommonsPart], Field(min_length=1, max_length=MOST_PARTS)],
    ),
]
"""One commons, or several that stand side by side, each with sums of its own."""
