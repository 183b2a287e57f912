"""Schemas of requests and responses as JSON."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator
from pydantic.json_schema import SkipJsonSchema
from pydantic_core import PydanticCustomError

from engram.config.definition import Budget, DecoderNumber, Definition
from engram.config.input_shape import Background
from service.jobs.submission import TASK_NAME
from service.models.request_fields import RequestFields, whole
from vault.commit_log import Publish

MODEL_NAME = r"^[a-z0-9][a-z0-9_-]{0,62}$"

MOST_LABELS = 100_000
"""Labels that one request renames."""

ModelName = Annotated[str, Field(pattern=MODEL_NAME)]
TaskName = Annotated[str, Field(pattern=TASK_NAME)]


class ModelRequest(Definition):
    """A model to create: a definition and a name."""

    name: ModelName
    adopt: TaskName | SkipJsonSchema[None] = None
    """Name of a first task that is the classifier of the first network among `commons`, as it is; its classes are those
    that were named when the network was stored. Version 1 then answers what the network answers."""
    publish: Publish | SkipJsonSchema[None] = None
    """Whether what is learned answers at once (`auto`, the default), or waits until it is activated (`manual`)."""

    def definition(self) -> Definition:
        """The definition without the name."""
        return Definition.model_validate(self.model_dump(exclude={"name", "adopt", "publish"}, exclude_unset=True))


class ModelChangeRequest(BaseModel):
    """More room, another decoder, another way to publish; what is left out stays as it is."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"minProperties": 1})

    budget: Budget | SkipJsonSchema[None] = None
    """More room: a multiple of one task's units, or units by layer."""
    decoder: DecoderNumber | SkipJsonSchema[None] = None
    """Number of the way from an encoded image to pixels, for this version and those after it."""
    background: Background | None = None
    """Colour that transparent parts of an image are laid over; null for white. Decoder 1 has none."""

    publish: Publish | SkipJsonSchema[None] = None
    """Whether what is learned from now on answers at once (`auto`), or waits until it is activated (`manual`)."""

    @field_validator("budget", "decoder", "publish", mode="before")
    @classmethod
    def _check_null(cls, given: Any) -> Any:
        if given is None:
            raise PydanticCustomError("null", "cannot be null")
        return given

    @model_validator(mode="after")
    def _check_given(self) -> Self:
        if not self.model_fields_set:
            raise PydanticCustomError("nothing", "names neither a budget nor a decoder nor a background nor publish")
        return self

    def decoding(self) -> dict[str, Any]:
        """What is asked of the decoding."""
        return self.model_dump(include={"decoder", "background"}, exclude_unset=True)


class DataSource(BaseModel):
    """Training data that lies where the workers can read it."""

    model_config = ConfigDict(extra="forbid")

    uri: str = Field(min_length=1, max_length=2048)


class TaskRequest(BaseModel):
    """A task to learn from data that is not uploaded."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(json_schema_extra={"pattern": TASK_NAME})
    data: DataSource
    options: dict[str, Any] = Field(default_factory=dict)


class EvaluationRequest(BaseModel):
    """Versions to evaluate on labelled images that are not uploaded."""

    model_config = ConfigDict(extra="forbid")

    data: DataSource
    versions: list[Annotated[int, Field(ge=0, lt=10**8)]] | None = Field(default=None, min_length=1, max_length=2)
    """One, or two to be compared; by default the one that answers."""
    task: str | None = None
    """The task that all images are of; by default their folders say it."""


Contenders = Annotated[int, Field(ge=1, le=64), BeforeValidator(whole)] | Literal["all"]


HeatmapFormat = Literal["overlay", "heatmap", "json"]


class PredictFields(RequestFields):
    """What a prediction is asked for, besides its images."""

    top_k: Annotated[int, Field(ge=1, le=100), BeforeValidator(whole)] = 1
    task: str | None = None
    version: Annotated[int, Field(ge=0), BeforeValidator(whole)] | None = None
    logits: bool = False
    contenders: Contenders | None = None
    explain: HeatmapFormat | None = None


class ExplainFields(RequestFields):
    """What a heatmap is asked for, besides its image."""

    target: str | None = Field(default=None, max_length=255)
    task: str | None = None
    version: Annotated[int, Field(ge=0), BeforeValidator(whole)] | None = None
    composite: str | None = Field(default=None, min_length=1, max_length=64)
    format: HeatmapFormat = "overlay"


class LearnedNames(BaseModel):
    """What a task and its classes were learned under."""

    name: str
    classes: list[str]


class TaskSummary(BaseModel):
    name: str
    classes: list[str]
    learned_as: LearnedNames | SkipJsonSchema[None] = None
    """Where a name is another now: those that it was learned under."""


class TaskChangeRequest(BaseModel):
    """Other names of a task and of its classes; what is left out stays as it is."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"minProperties": 1})

    name: TaskName | SkipJsonSchema[None] = None
    labels: dict[str, str] = Field(default_factory=dict, max_length=MOST_LABELS)
    """New labels by those that are shown, or that were learned."""

    @model_validator(mode="after")
    def _check_given(self) -> Self:
        if self.name is None and not self.labels:
            raise PydanticCustomError("nothing", "names neither a name nor labels")
        return self


class Capacity(BaseModel):
    """One layer: all its units, those each task owns, those still free."""

    layer: str
    units: int
    owned: dict[str, int]
    free: int


class ModelSummary(BaseModel):
    """A model in a list."""

    name: str
    version: int
    tasks: int
    """How many it has learned."""
    created_at: str


class InvalidField(BaseModel):
    """One thing that does not fit, and where."""

    loc: list[str]
    message: str


class ProblemDocument(BaseModel):
    """What every refusal looks like (RFC 9457)."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int = Field(ge=400, le=599)
    detail: str
    code: str
    """Stable; for programs."""
    request_id: str | None = None
    errors: list[InvalidField] | None = None
    object: str | None = None
    """What is damaged or missing in the store, where that is to blame (500)."""


class ProblemResponse(BaseModel):
    """What keeps the newest version out of service or from being learned on, or an older one from being had."""

    code: str
    detail: str
    version: int | None
    object: str | None


class ModelResponse(BaseModel):
    """One model: its definition's fields beside what it has become."""

    model_config = ConfigDict(extra="allow")

    name: str
    version: int
    """The one that answers."""
    publish: Publish = "auto"
    """Whether what is learned answers at once, or waits as a candidate until it is activated."""
    candidates: list[int] = Field(default_factory=list)
    """The versions that wait to be activated, ascending."""
    tasks: list[TaskSummary]
    capacity: list[Capacity]
    exact: bool
    """Whether what a task answers, when it is given, can never change again; else certificates measure how much did."""
    problems: list[ProblemResponse]
    """Why a newer version than `version` does not answer, why this one cannot be learned on, which older ones cannot be
    had; empty when nothing is wrong."""
    created_at: str


class TaskResponse(TaskSummary):
    """One task, with the version that brought it and how it was learned."""

    model: str
    version: int
    reads: dict[str, dict[str, int]] | None
    """What its network reads of earlier tasks: how many units of each, by layer; null where nothing says so, as of a
    task without a network, or of one that reads all."""
    closure: float | None
    """What an answer of it takes, with all that it reads, in multiples of its own multiply-adds; null likewise."""
    report: dict[str, Any] | None


class CandidateResponse(BaseModel):
    task: str
    label: str
    probability: float
    evidence: Literal["head", "ridge"]
    """Whether the network of the task said so, or the regression over the commons alone, where it was not run."""
    tasks: list[str]
    """All tasks that have a label of this name, the most probable first; empty where their labels are told apart."""


class ExplanationResponse(BaseModel):
    """The heatmap of an answer's label: a PNG in base64, or the numbers that `/explain` gives."""

    task: str
    """Whose network is explained."""
    label: str
    composite: str
    format: HeatmapFormat
    media_type: str | None = None
    b64: str | None = None
    relevance: list[list[list[float]]] | None = None
    """(C, H, W), as are `sum` and `logit` of the format `json` alone."""
    sum: float | None = None
    goal: float | None = None
    logit: float | None = None


class FailedExplanation(BaseModel):
    """What stands in a heatmap's place where the answer has none, such as that of a task without a network."""

    error: dict[str, Any]


class PredictionResponse(BaseModel):
    """The answer for one image."""

    task: str
    task_probability: float
    label: str
    probability: float
    top: list[CandidateResponse]
    known: bool | None
    """Whether the task that is answered accepts the image as one of its own kind; null where it cannot be
    told."""
    novelty: float
    passes: int
    """How often the image went through a network; 1 for the default method."""
    ran: list[str]
    """The tasks whose networks were run for it; empty where a model always runs them all."""
    calibrated: bool = True
    """Whether probabilities are fitted on images that were held out; not where an adopted network has its say of whose
    classes no image was given."""
    logits: list[float] | None = None
    explanation: ExplanationResponse | FailedExplanation | None = None
    """Where `explain` asks for it."""


class FailedPrediction(BaseModel):
    """What stands at the place of an image that could not be read."""

    error: dict[str, Any]


class PredictResponse(BaseModel):
    model: str
    version: int
    predictions: list[PredictionResponse | FailedPrediction]


class HeatmapResponse(BaseModel):
    """A heatmap in numbers: relevance (C, H, W), its sum, and the logit it explains."""

    model: str
    version: int
    task: str
    label: str
    composite: str
    relevance: list[list[list[float]]]
    sum: float
    goal: float | None
    """What the sum is meant to be, over pretrained networks; null where nothing is conserved."""
    logit: float


class ModelPage(BaseModel):
    models: list[ModelSummary]
    next: str | None


class TaskPage(BaseModel):
    tasks: list[TaskSummary]
    next: str | None
