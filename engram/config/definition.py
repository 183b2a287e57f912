"""Definitions of models: backbone, input, method, budget, commons and numbered behaviour."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from engram.config.base import Frozen
from engram.config.eidetic import EideticSettings
from engram.config.methods import SETTINGS
from engram.errors import UnsupportedFormat


def whole_number(given: Any) -> Any:
    """What was given, unless it is a truth value or a fraction, which Python takes for equal to whole numbers."""
    if isinstance(given, bool | float):
        raise PydanticCustomError("int_type", "not a whole number")
    return given


Multiple = Annotated[float, Field(gt=0, le=1024, strict=True)]
Units = Annotated[int, Field(ge=1, le=2**20, strict=True)]
Budget = Multiple | dict[str, Units]
"""A multiple of one task's units, or a number for each named layer."""
DecoderNumber = Annotated[Literal[1, 2], BeforeValidator(whole_number)]
"""Number of the way from an encoded image to pixels, one of `engram.data.images`; 1 is that of 0.1.0."""
Background = Annotated[str, Field(pattern=r"^#[0-9a-fA-F]{6}$"), AfterValidator(str.lower)]
"""A colour as `#rrggbb`, in lower case once validated."""


LARGEST_SIDE = 64
"""The commons average images down until their shorter side is under twice this: the cost stays that of a small one."""


class InputShape(Frozen):
    """The images a model sees; others are resized to this height and width."""

    channels: Literal[1, 3]
    """1 for grey, 3 for colour."""
    height: int = Field(ge=8, le=1024)
    """Pixels."""
    width: int = Field(ge=8, le=1024)
    """Pixels."""
    convert: bool = False
    """Whether images of the other number of channels are converted instead of refused.

    Decoder 2 refuses nothing but coloured images for a grey model.
    """
    background: Background | None = None
    """Colour, as `#rrggbb`, that transparent parts of an image are laid over; white where nothing is said."""

    _decoder: int = PrivateAttr(default=2)

    @property
    def shrink(self) -> int:
        """Pixels a side that the commons average into one."""
        return max(1, min(self.height, self.width) // LARGEST_SIDE)

    @property
    def decoder(self) -> int:
        """The decoder of the model that the shape is of; the newest for a shape that is of none."""
        return self._decoder

    def of_decoder(self, number: int) -> Self:
        """The shape of a model with this decoder."""
        found = self.model_copy()
        object.__setattr__(found, "__pydantic_private__", {"_decoder": number})
        return found


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


class Definition(Frozen):
    """The definition of a model: backbone, input, method, and its budget of units.

    Everything the weights depend on is in here, `seed` included: the same definition, data and options give the same
    model on the same machine.

    Raises
    ------
    pydantic.ValidationError
        for an unknown field, and for a value that its field does not take. What only the method or the layout can
        judge, `Memory.create` refuses by `InvalidDefinition`.
    """

    backbone: Literal["mlp", "cnn", "resnet18", "resnet50"] = "cnn"
    """The layout that every engram follows."""
    input: InputShape
    method: Literal["eidetic", "rnf", "rerelrp", "rmn", "sharc"] = "eidetic"
    """How tasks are kept apart."""
    settings: dict[str, Any] = Field(default_factory=dict, validate_default=True)
    """The method's own settings, perhaps with the name of a `preset`; whole, with every default, once validated."""
    retention: Literal["none", "features", "data"] = "none"
    """What is kept of the training images: nothing but sums, some of their features, or the images themselves."""
    width: float = Field(default=1.0, gt=0, le=16)
    """Multiplies the units that a new task may try in each layer."""
    depth: int | None = Field(default=None, ge=1, le=8)
    """Hidden layers of `mlp` (default 2) or stages of `cnn` (default 3); the residual networks have theirs by name."""
    budget: Budget = 8.0
    """Units per layer for all tasks together: a multiple of one task's units, or a number for each named layer."""
    commons: CommonsDefinition = CommonsDefinition()
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Seeds the commons and, with the task's name (before recipe 3, its number), every engram's first weights."""
    decoder: DecoderNumber = 2
    """Number of the way from an encoded image to pixels, one of `engram.data.decoders`; 1 is that of 0.1.0."""
    recipe: Annotated[Literal[1, 2, 3], BeforeValidator(whole_number)] = 3
    """Number of the way that tasks are learned and recognised; 1 is that of 0.1.0.

    Since 2, small classes count as much as large ones, and whether an image is known is judged by all images of a task.
    Since 3, sums are exact, a task reads few earlier units, and an image is answered by the tasks that contend for it.
    """

    numbers_of_the_first_release: ClassVar[Mapping[str, int]] = {"decoder": 1, "recipe": 1}
    """What a stored definition means by a number that it lacks: it was written before there was another."""

    @classmethod
    def load(cls, stored: Mapping[str, Any], decoding: Mapping[str, Any] | None = None) -> Self:
        """A definition as `stored` gave it, or as an earlier release did.

        Parameters
        ----------
        decoding
            The one that a version of the model names, in place of the definition's.

        Raises
        ------
        pydantic.ValidationError
        UnsupportedFormat
            for a decoding that this release does not know.
        """
        found = cls.model_validate({**cls.numbers_of_the_first_release, **stored})
        if decoding is None:
            return found
        try:
            return found.decoded_by(decoding)
        except ValidationError as error:
            raise UnsupportedFormat(
                f"images are decoded in a way that this release does not know: {decoding}"
            ) from error

    @property
    def decoding(self) -> dict[str, Any]:
        """How encoded images become pixels, as JSON: what may change from version to version of a model."""
        return {"decoder": self.decoder, "background": self.input.background}

    def decoded_by(self, decoding: Mapping[str, Any]) -> Self:
        """The definition with another `decoding`; raises ValidationError."""
        fields = dict(decoding)
        shape = {**dict(self.input), "background": fields.pop("background", None)}
        return type(self).model_validate({**dict(self), "input": shape, **fields})

    def stored(self) -> dict[str, Any]:
        """The fields as JSON; what an earlier release could have written is written as it would have been."""
        found = super().stored()
        for name, number in self.numbers_of_the_first_release.items():
            if found[name] == number:
                del found[name]
        if found["input"]["background"] is None:
            del found["input"]["background"]
        return {**found, "commons": self.commons.stored()}

    def agreeing(self, other: Definition) -> Self:
        """The definition with the numbers of another, where none were asked for by name.

        It is left as it is where it asks for what those numbers do not have.
        """
        unsaid = self.numbers_of_the_first_release.keys() - self.model_fields_set
        fields = {**dict(self), **{name: getattr(other, name) for name in unsaid}}
        if self.method == "eidetic" and fields["recipe"] < 3:
            fields["settings"] = EideticSettings.without_later(self.settings, self.retention)
        try:
            return type(self).model_validate(fields)
        except ValidationError:
            return self

    @model_validator(mode="after")
    def _check_background(self) -> Self:
        if self.decoder == 1 and self.input.background is not None:
            raise PydanticCustomError(
                "background", "has a background, but decoder 1 lays transparency over black: leave it out"
            )
        if self.input.decoder != self.decoder:
            # Whoever decodes for a model gives its shape, and shall not have to think of the decoder as well.
            self.__dict__["input"] = self.input.of_decoder(self.decoder)
        return self

    @model_validator(mode="after")
    def _check_commons(self) -> Self:
        if self.recipe < 3 and self.commons.of_recipe_3:
            raise PydanticCustomError("recipe", "commons.{name} needs recipe 3", {"name": self.commons.of_recipe_3[0]})
        if self.recipe > 2:
            self.commons.banks(self.input)
        return self

    @model_validator(mode="after")
    def _settle_reading(self) -> Self:
        if self.method == "eidetic":
            whole = EideticSettings.model_validate(self.settings).of_recipe(self.recipe, self.retention)
            self.__dict__["settings"] = whole
        return self

    @field_validator("settings")
    @classmethod
    def _settle(cls, given: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        if "method" not in info.data:
            return given  # the method has an error of its own, which is reported already
        return SETTINGS[info.data["method"]].settled(given).model_dump(mode="json")
