"""Definitions of models: backbone, input, method, budget and commons."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from engram.config.base import Frozen
from engram.config.methods import SETTINGS

Multiple = Annotated[float, Field(gt=0, le=1024, strict=True)]
Units = Annotated[int, Field(ge=1, le=2**20, strict=True)]
Budget = Multiple | dict[str, Units]
"""A multiple of one task's units, or a number for each named layer."""


class InputShape(Frozen):
    """The images a model sees; others are resized to this height and width."""

    channels: Literal[1, 3]
    """1 for grey, 3 for colour."""
    height: int = Field(ge=8, le=1024)
    """Pixels."""
    width: int = Field(ge=8, le=1024)
    """Pixels."""
    convert: bool = False
    """Whether images of the other number of channels are converted instead of refused."""


class ResolvedCommons(Frozen):
    """The commons as they are made, nothing left open."""

    kind: Literal["smooth", "learned"]
    features: int
    patch: int
    grid: int


class CommonsDefinition(Frozen):
    """Block 0: the fixed features that the task recogniser builds on."""

    kind: Literal["smooth", "learned"] | None = None
    """`smooth` filters are drawn when the model is created. `learned` ones are directions in which whitened patches of
    the first task's images cluster: better for photographs. By default learned for colour and smooth for grey images.
    """
    features: int = Field(default=2048, ge=64, le=16384, multiple_of=32)
    """How many features. The sums over them take `features ** 2 * 4` bytes of storage per task: float64, packed."""
    patch: int | None = Field(default=None, ge=2, le=16)
    """Side of the square filters, in pixels; by default 8 for smooth and 6 for learned filters."""

    def resolved(self, shape: InputShape) -> ResolvedCommons:
        """With the defaults for images of this shape; responses are averaged over a grid of `grid` cells a side."""
        kind = self.kind or ("learned" if shape.channels == 3 else "smooth")
        patch, grid = (8, 4) if kind == "smooth" else (6, 2)
        return ResolvedCommons(kind=kind, features=self.features, patch=self.patch or patch, grid=grid)


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
    """Seeds the commons and, with the task's number, every engram's first weights."""

    @field_validator("settings")
    @classmethod
    def _settle(cls, given: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        if "method" not in info.data:
            return given  # the method has an error of its own, which is reported already
        return SETTINGS[info.data["method"]].settled(given).model_dump(mode="json")
