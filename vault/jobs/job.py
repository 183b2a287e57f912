"""Job: the records of one job, as read at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from vault.coordination.events import FINAL

Outcome = Literal["succeeded", "failed", "cancelled"]
State = Literal["queued", "running", "succeeded", "failed", "cancelled"]
JobKind = Literal["learn", "evaluate"]

OF_KINDS = 4
"""Format of the request of a job that does not learn: releases that know lower numbers only would learn from it."""


@dataclass(frozen=True)
class Job:
    """One job, as it was when it was read."""

    id: str
    """Sorts by the time of submission."""
    model: str
    task: str
    """Name of the task to learn; of an evaluation that of all its images, empty where their folders say it."""
    data: str
    """Name of the upload (`ObjectStore.put_file`), or a URI."""
    options: dict[str, Any]
    """Options of learning or evaluating; opaque to the vault."""
    created_at: str
    """RFC 3339, UTC."""
    lineage: str | None = None
    """`Model.lineage` of the model it was submitted for, if given."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Further fields of the submission; opaque to the vault."""
    kind: JobKind = "learn"

    state: State = "queued"
    attempts: int = 0
    """Attempts begun."""
    cancel_requested: bool = False
    phase: str | None = None
    """Phase of a running job; the last one of a failed or cancelled job, as long as Redis has it."""
    progress: dict[str, Any] = field(default_factory=dict)
    """Figures reported with it, such as `fraction` and `epoch`; may be empty. A success has only a `fraction` of 1."""
    error: dict[str, Any] | None = None
    """`code` and `detail` of a job that failed or was cancelled."""
    result: dict[str, Any] | None = None
    finished_at: str | None = None
    """RFC 3339, UTC."""

    @property
    def over(self) -> bool:
        """Whether it has a result, which is final."""
        return self.state in FINAL

    @property
    def lease(self) -> str:
        """Name of the lease that it is worked on under: the model's, whose tasks are learned one by one, or its own."""
        return lease_of(self.kind, self.model, self.id)

    @property
    def uploaded(self) -> bool:
        """Whether its data is an upload in the store, to be deleted when the job is over."""
        return "://" not in self.data


def lease_of(kind: JobKind, model: str, job_id: str) -> str:
    """The name of the lease that a job is worked on under; no model can be called as that of an evaluation."""
    return model if kind == "learn" else f"{kind}:{job_id}"


def kind_of(request: Mapping[str, Any]) -> JobKind:
    """The kind of a job, by its request; those that learn do not name it, as in earlier releases."""
    return "evaluate" if request.get("kind") == "evaluate" else "learn"
