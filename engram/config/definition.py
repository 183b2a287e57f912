"""Definitions of models: backbone, input, method, budget, commons and numbered behaviour."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from engram.config.base import Frozen
from engram.config.commons import (
    CommonsChoice,
    CommonsDefinition,
    CommonsPart,
    PretrainedDefinition,
    ResolvedCommons,
    regressions,
)
from engram.config.eidetic import EideticSettings
from engram.config.engines import (
    FIRST_ENGINE,
    FIRST_PRECISION,
    ONNX_RUNTIME,
    ONNX_RUNTIME_2,
    OPENVINO,
    EngineName,
    Precision,
)
from engram.config.input_shape import InputShape
from engram.config.methods import SETTINGS
from engram.errors import UnsupportedFormat

__all__ = ["CommonsDefinition", "Definition", "InputShape", "PretrainedDefinition", "ResolvedCommons", "whole_number"]

PHOTOGRAPHS = InputShape(channels=3, height=224, width=224, fit="crop")
"""What stands for images until it is known which network sees them."""

OVER_NETWORK = ("adapter", "none")
"""Backbones of tasks that read the maps or features of a network that the user brought, not the image."""


CONVOLUTIONAL = ("cnn", "resnet18", "resnet50", "vgg11", "vgg16")
"""Backbones of tasks whose networks are convolutions of the image, for the most part."""


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

    backbone: Literal["mlp", "cnn", "resnet18", "resnet50", "vgg11", "vgg16", "adapter", "none"] = "cnn"
    """The layout that every engram follows. Over a pretrained commons, `adapter` is small blocks that read its maps
    (the default there), and `none` a linear head alone."""
    input: InputShape = PHOTOGRAPHS
    """The images it takes; over a network that the user brings, by default those that it was made for."""
    method: Literal["eidetic", "rnf", "rerelrp", "rmn", "sharc"] = "eidetic"
    """How tasks are kept apart."""
    settings: dict[str, Any] = Field(default_factory=dict, validate_default=True)
    """The method's own settings, perhaps with the name of a `preset`; whole, with every default, once validated."""
    retention: Literal["none", "features", "data"] = "none"
    """What is kept of the training images: nothing but sums, some of their features, or the images themselves."""
    width: float = Field(default=1.0, gt=0, le=16)
    """Multiplies the units that a new task may try in each layer."""
    depth: int | None = Field(default=None, ge=1, le=8)
    """Hidden layers of `mlp` (default 2) or stages of `cnn` (default 3); the others have theirs by name."""
    budget: Budget = 8.0
    """Units per layer for all tasks together: a multiple of one task's units, or a number for each named layer."""
    commons: CommonsChoice = CommonsDefinition()
    """What the task recogniser builds on: one definition, or a list of several that stand side by side."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Seeds the commons and, with the task's name (before recipe 3, its number), every engram's first weights."""
    decoder: DecoderNumber = 2
    """Number of the way from an encoded image to pixels, one of `engram.data.decoders`; 1 is that of 0.1.0."""
    recipe: Annotated[Literal[1, 2, 3], BeforeValidator(whole_number)] = 3
    """Number of the way that tasks are learned and recognised; 1 is that of 0.1.0.

    Since 2, small classes count as much as large ones, and whether an image is known is judged by all images of a task.
    Since 3, sums are exact, a task reads few earlier units, and an image is answered by the tasks that contend for it.
    """

    novelty: Annotated[Literal[1, 2, 3], BeforeValidator(whole_number)] = 3
    """Number of the way that unknown images are told over a network that the user brings; 1 everywhere else.

    Since 2, by distances from classes relative to that from all of them. Since 3, also by what the network's own
    classifier sees in an image and hardly sees in those of the known classes, where it has a linear one.
    """

    learning: Annotated[Literal[1, 2, 3], BeforeValidator(whole_number)] = 3
    """Number of the way that networks and detectors are learned where answers are staged; 1 everywhere else.

    Since 2, optimisers take their steps in one operation, networks are judged as they are served, units are scored by
    fewer images, and passes after pruning go over some thousand images at most, as do detectors of earlier tasks; a
    head that is surely no worse than it and the commons together decides alone. Since 3, networks are trained with the
    channels of a place side by side in memory, and normalise maps once they are pooled, which is sooner done and rounds
    otherwise; a task's own detector learns from some thousand images as well, or some hundred of each class.
    """

    engine: EngineName = FIRST_ENGINE
    """What its answers are computed by, one of `engram.config.engines`: name and number. `onnxruntime-1` needs the
    extra `onnx`, wherever the model is learned and served, and a network that the user brought; `onnxruntime-2` such a
    network or a convolutional backbone, answers in stages, and float32. `openvino-1` needs the extra `openvino`, a
    convolutional backbone of its own, and answers in stages."""
    precision: Precision = FIRST_PRECISION
    """What the convolutions of its tasks' networks are computed in, while serving and wherever learning judges what
    will be served. `bf16` needs a processor that has such instructions, and recipe 3 with a convolutional backbone;
    commons, heads and heatmaps stay in float32, as does training without the option `mixed_precision`."""

    numbers_of_the_first_release: ClassVar[Mapping[str, int]] = {"decoder": 1, "recipe": 1, "novelty": 1, "learning": 1}
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
        if self.engine == FIRST_ENGINE:
            del found["engine"]
        if self.precision == FIRST_PRECISION:
            del found["precision"]
        several = isinstance(self.commons, tuple)
        parts = [part.stored() for part in self.parts]
        return {**found, "input": self.input.stored(), "commons": parts if several else parts[0]}

    @property
    def parts(self) -> tuple[CommonsPart, ...]:
        """The commons that stand side by side, of which there is mostly one."""
        return self.commons if isinstance(self.commons, tuple) else (self.commons,)

    @property
    def filters(self) -> CommonsDefinition:
        """The only commons of a model that has nothing else but filters."""
        assert isinstance(self.commons, CommonsDefinition), "only staged models have other commons than filters"
        return self.commons

    @property
    def pretrained(self) -> tuple[PretrainedDefinition, ...]:
        """The networks among the commons that the user brought."""
        return tuple(part for part in self.parts if isinstance(part, PretrainedDefinition))

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

    @property
    def staged(self) -> bool:
        """Whether its answers are in stages, each task's network apart from the others."""
        return self.method == "eidetic" and self.recipe > 2 and self.settings.get("reads") != "all"

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
        if self.pretrained or isinstance(self.commons, tuple):
            _check_staged(self)
            regressions(self.parts)
        elif self.backbone in OVER_NETWORK:
            raise PydanticCustomError("backbone", "{name} needs a pretrained commons", {"name": self.backbone})
        for part in self.parts:
            if isinstance(part, PretrainedDefinition):
                continue
            if self.recipe < 3 and part.of_recipe_3:
                raise PydanticCustomError("recipe", "commons.{name} needs recipe 3", {"name": part.of_recipe_3[0]})
            if self.recipe > 2:
                part.banks(self.input)
        return self

    @model_validator(mode="after")
    def _settle_novelty(self) -> Self:
        if self.novelty > 1 and not self.pretrained:
            if "novelty" in self.model_fields_set:
                raise PydanticCustomError(
                    "novelty", "novelty {number} needs a pretrained commons", {"number": self.novelty}
                )
            self.__dict__["novelty"] = 1
        return self

    @model_validator(mode="after")
    def _settle_reading(self) -> Self:
        if self.method == "eidetic":
            settings = EideticSettings.model_validate(self.settings)
            if self.backbone in OVER_NETWORK and settings.reads is None:
                settings = settings.model_copy(update={"reads": "commons"})
            whole = settings.of_recipe(self.recipe, self.retention)
            self.__dict__["settings"] = whole
            if whole.get("reads") == "all" and (self.pretrained or isinstance(self.commons, tuple)):
                raise PydanticCustomError("reads", "where a task reads all, the commons are filters of one kind")
        return self

    @model_validator(mode="after")
    def _settle_learning(self) -> Self:
        if self.learning > 1 and not self.staged:
            if "learning" in self.model_fields_set:
                raise PydanticCustomError(
                    "learning",
                    "learning {number} needs answers in stages: eidetic, not `reads: all`",
                    {"number": self.learning},
                )
            self.__dict__["learning"] = 1
        return self

    @model_validator(mode="after")
    def _check_engine(self) -> Self:
        if self.engine == ONNX_RUNTIME and not self.pretrained:
            raise PydanticCustomError("engine", "engine onnxruntime-1 is for networks that the user brought")
        if self.engine == ONNX_RUNTIME_2:
            if not self.staged or not (self.pretrained or self.backbone in CONVOLUTIONAL):
                raise PydanticCustomError(
                    "engine",
                    "engine onnxruntime-2 is for convolutions and staged answers: eidetic, recipe 3, not `reads: all`",
                )
            if self.precision != FIRST_PRECISION:
                raise PydanticCustomError("engine", "engine onnxruntime-2 computes in float32 alone")
        if self.engine == OPENVINO and (self.pretrained or not self.staged or self.backbone not in CONVOLUTIONAL):
            raise PydanticCustomError(
                "engine",
                "engine openvino-1 is for convolutions and staged answers: eidetic, recipe 3, not `reads: all`, and no "
                "network that the user brought, for which there are onnxruntime-1 and onnxruntime-2",
            )
        return self

    @model_validator(mode="after")
    def _check_precision(self) -> Self:
        if self.precision == FIRST_PRECISION:
            return self
        if not self.staged:
            raise PydanticCustomError("precision", "precision bf16 needs answers in stages: eidetic, not `reads: all`")
        if self.backbone not in CONVOLUTIONAL:
            raise PydanticCustomError(
                "precision", "precision bf16 is for networks of convolutions, not for {name}", {"name": self.backbone}
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _over_network(cls, given: Any) -> Any:
        """What brings a network has small blocks over that, where it says no backbone, and needs to name no images."""
        if not isinstance(given, Mapping):
            return given
        commons = given.get("commons")
        kinds = [_kind(part) for part in (commons if isinstance(commons, list | tuple) else [commons])]
        if "pretrained" in kinds:
            return given if "backbone" in given else {**given, "backbone": "adapter"}
        if "input" not in given:
            details = InitErrorDetails(type="missing", loc=("input",), input=dict(given))
            raise ValidationError.from_exception_data(cls.__name__, [details])
        return given

    @field_validator("settings")
    @classmethod
    def _settle(cls, given: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        if "method" not in info.data:
            return given  # the method has an error of its own, which is reported already
        return SETTINGS[info.data["method"]].settled(given).model_dump(mode="json")


def _kind(part: Any) -> Any:
    return part.get("kind") if isinstance(part, Mapping) else getattr(part, "kind", None)


def _check_staged(definition: Definition) -> None:
    """Raise PydanticCustomError where a definition's commons need a staged model, and it is none."""
    if definition.method != "eidetic" or definition.recipe < 3:
        raise PydanticCustomError("commons", "pretrained commons, and several, need the method eidetic and recipe 3")
    if definition.retention != "none":
        raise PydanticCustomError("commons", "a model with pretrained commons, or several, keeps no images")
    if definition.backbone in OVER_NETWORK and not definition.pretrained:
        raise PydanticCustomError("backbone", "{name} needs a pretrained commons", {"name": definition.backbone})
    if definition.backbone in OVER_NETWORK and definition.settings.get("reads") not in (None, "commons"):
        raise PydanticCustomError("reads", "over a pretrained commons a task reads commons alone")
    if definition.backbone in OVER_NETWORK and definition.depth is not None:
        raise PydanticCustomError("depth", "{name} has no depth to choose", {"name": definition.backbone})
