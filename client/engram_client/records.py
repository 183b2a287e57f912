"""What the service answers, as records: models, tasks, jobs, versions, predictions, novelty."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from engram_client.reading import Record

FINAL = frozenset({"succeeded", "failed", "cancelled"})
"""States in which a job is over."""

Listed = TypeVar("Listed")


@dataclass(frozen=True)
class ListPage(Generic[Listed]):
    """Part of a list, and where the next part begins; None after the last."""

    items: tuple[Listed, ...]
    next: str | None


@dataclass(frozen=True, kw_only=True)
class ModelEntry(Record):
    """A model in a list."""

    name: str
    version: int
    tasks: int
    """How many it has learned."""
    created_at: str


@dataclass(frozen=True, kw_only=True)
class TaskEntry(Record):
    """A task in a list, with its classes in their order."""

    name: str
    classes: tuple[str, ...]
    learned_as: TaskEntry | None = None
    """What it and its classes were learned under, where a name is another now."""


@dataclass(frozen=True, kw_only=True)
class LayerRoom(Record):
    """One layer of a network: all its units, those each task owns, those still free."""

    layer: str
    units: int
    owned: Mapping[str, int]
    free: int


@dataclass(frozen=True, kw_only=True)
class ProblemNote(Record):
    """What keeps a version from being served, learned on or had."""

    code: str
    detail: str
    version: int | None = None
    object: str | None = None


@dataclass(frozen=True, kw_only=True)
class ModelInfo(Record):
    """One model: what it has become. The fields of its definition are in `raw`."""

    name: str
    version: int
    """The version that answers."""
    publish: str | None = None
    """`auto`, or `manual` where what is learned waits to be activated."""
    candidates: tuple[int, ...] = ()
    """The versions that wait, ascending."""
    backbone: str
    tasks: tuple[TaskEntry, ...]
    capacity: tuple[LayerRoom, ...] = ()
    exact: bool | None = None
    """Whether what a task answers, when it is given, can never change again."""
    problems: tuple[ProblemNote, ...] = ()
    created_at: str


@dataclass(frozen=True, kw_only=True)
class LearnedTaskInfo(Record):
    """One learned task, with the version that brought it and the report of its learning."""

    name: str
    classes: tuple[str, ...]
    learned_as: TaskEntry | None = None
    model: str
    version: int
    reads: Mapping[str, Mapping[str, int]] | None = None
    closure: float | None = None
    report: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class JobProblem(Record):
    """Why a job ended without a version."""

    code: str
    detail: str


@dataclass(frozen=True, kw_only=True)
class JobRecord(Record):
    """One job as it is at a moment."""

    id: str
    kind: str = "learn"
    """`learn`, or `evaluate` of one that changes nothing."""
    model: str
    task: str
    """The task to learn; of an evaluation that of all its images, empty where their folders say it."""
    state: str
    """`queued`, `running`, `succeeded`, `failed` or `cancelled`."""
    phase: str | None = None
    progress: Mapping[str, Any] | None = None
    """`fraction` of the whole, `epoch`, `loss`, `accuracy`, `units`, as far as there are any."""
    attempts: int = 0
    created_at: str
    finished_at: str | None = None
    """When it ended, in any way; None of an open one, and of services before this field."""
    error: JobProblem | None = None
    result: Mapping[str, Any] | None = None
    """Of one that succeeded: the `version` it made and the `report`, or the `evaluation`."""

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self.state in FINAL

    @property
    def version(self) -> int | None:
        """The version that it made."""
        return None if self.result is None else self.result.get("version")

    @property
    def evaluation(self) -> Mapping[str, Any] | None:
        """What an evaluation has found: the figures of each of the `versions`, and their `comparison`."""
        return None if self.result is None else self.result.get("evaluation")


@dataclass(frozen=True, kw_only=True)
class JobUpdate(Record):
    """One event in the life of a job: a new state, or progress within a phase."""

    state: str | None = None
    phase: str | None = None
    fraction: float | None = None
    """Share of the whole work, 0 to 1."""
    epoch: int | None = None
    loss: float | None = None
    accuracy: float | None = None
    error: JobProblem | None = None
    result: Mapping[str, Any] | None = None

    @property
    def over(self) -> bool:
        """Whether it is the last one."""
        return self.state in FINAL


@dataclass(frozen=True, kw_only=True)
class VersionRecord(Record):
    """One entry of a model's history."""

    version: int
    status: str | None = None
    """`active` for the one that answers, `candidate` for one that waits to be activated, or `past`."""
    parent: int | None = None
    kind: str
    """`create`, `learn`, `activate`, and the like."""
    task: str | None = None
    tasks: tuple[TaskEntry, ...] = ()
    renamed: Mapping[str, Any] | None = None
    """Of a `rename`: what is shown of `task` otherwise than before, `from`, `to` and `labels`."""
    target: int | None = None
    job: str | None = None
    created_at: str


@dataclass(frozen=True, kw_only=True)
class LabelCandidate(Record):
    """One of the labels that come into question."""

    task: str
    label: str
    probability: float
    evidence: str | None = None
    """`head` where the network of the task was run, `ridge` where the regression alone has the say."""
    tasks: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ImageAnswer(Record):
    """The answer for one image."""

    task: str
    task_probability: float
    label: str
    probability: float
    top: tuple[LabelCandidate, ...] = ()
    known: bool | None = None
    """Whether the task takes the image for one of its own kind; None where it cannot be told."""
    novelty: float | None = None
    logits: tuple[float, ...] | None = None
    model: str
    version: int
    """The version that answered."""


@dataclass(frozen=True, kw_only=True)
class ImageFailure(Record):
    """What stands in the place of an image that could not be read."""

    code: str
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class WelchTest(Record):
    """The latest Welch test: whether the newest images look less usual than the first ones."""

    reference_samples: int
    p_value: float | None = None
    drift: bool


@dataclass(frozen=True, kw_only=True)
class CusumTest(Record):
    """The cumulative sum over unusual images, and where its alarm is."""

    value: float
    threshold: float
    raised: bool


@dataclass(frozen=True, kw_only=True)
class NoveltyInfo(Record):
    """Whether the images that come in are of tasks that the model knows."""

    model: str
    version: int
    state: str
    """`known`, `new task suspected` or `drift`."""
    samples: int
    unknown: int
    unknown_share: float
    since: str
    welch: WelchTest | None = None
    cusum: CusumTest | None = None


@dataclass(frozen=True, kw_only=True)
class BackboneInfo(Record):
    """A network that a user brought; its levels, classes and preprocessing are in `raw`."""

    name: str
    architecture: str
    parameters: int
    bytes: int
    licence: str | None = None
    created_at: str


@dataclass(frozen=True, kw_only=True)
class KeyInfo(Record):
    """An API key; its limits are in `raw`."""

    id: str
    name: str
    scope: str
    """`predict`, `learn` or `admin`."""
    state: str
    """`valid`, `expired` or `revoked`."""
    created_at: str
    expires_at: str | None = None
    token: str | None = field(default=None, repr=False)
    """The secret: of a key that was just made, and never again."""


@dataclass(frozen=True, kw_only=True)
class OwnKeyInfo(Record):
    """What the client's key may do; its limits are in `raw`."""

    id: str | None = None
    """None, as the name, where the service asks for no key."""
    name: str | None = None
    scope: str
    expires_at: str | None = None


@dataclass(frozen=True, kw_only=True)
class AuditAuthor(Record):
    """Who asked for a change."""

    kind: str
    """`key`, `anonymous` where none is needed, or `cli` for a user of a machine that has the store."""
    id: str | None = None
    name: str | None = None


@dataclass(frozen=True, kw_only=True)
class AuditRecord(Record):
    """One change: who asked for it, and when."""

    id: str
    at: str
    action: str
    """`create`, `learn`, `activate`, `delete`, and the like."""
    by: AuditAuthor | None = None
    model: str | None = None
    task: str | None = None
    version: int | None = None
    """The version that it made."""
    target: int | None = None
    """The version that was activated or rejected."""
    job: str | None = None
    key: str | None = None
    backbone: str | None = None
    changed: tuple[str, ...] | None = None
    """All that the call changed, of `budget`, `decoder` and `publish`."""
    renamed: Mapping[str, Any] | None = None
    """Of a `rename`, as of `VersionRecord`; `task` is what it was learned under."""


@dataclass(frozen=True, kw_only=True)
class ServiceHealth(Record):
    """Whether the service can answer."""

    ready: bool
    reason: str | None = None
    """Why not, as a word."""
    detail: str | None = None
    models: int = 0
    """How many models can answer."""
