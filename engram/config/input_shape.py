"""The shape of a model's images, and how an image file becomes one."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, PrivateAttr

from engram.config.base import Frozen

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

    fit: Literal["stretch", "crop"] = "stretch"
    """How an image file of another shape becomes this one: its sides are `stretch`ed, or what is over is left out at
    both ends (`crop`), as networks that were trained on photographs expect it."""
    crop: float = Field(default=1.0, gt=0, le=1)
    """Share of the shorter side that is left where images are cropped."""
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    """How image files are resized; antialiased."""

    later_names: ClassVar[tuple[str, ...]] = ("background", "fit", "crop", "interpolation")
    """Fields that earlier releases have not; what says nothing is not stored."""

    _decoder: int = PrivateAttr(default=2)

    def stored(self) -> dict[str, Any]:
        """The fields as JSON; what an earlier release could have written is written as it would have been."""
        default = {name: type(self).model_fields[name].default for name in self.later_names}
        return {name: value for name, value in super().stored().items() if default.get(name, self) != value}

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
