"""Job: the records of one job, as read at one moment."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from vault.coordination.events import FINAL

Outcome = Literal["succeeded", "failed", "cancelled"]
State = Literal["queued", "running", "succeeded", "failed", "cancelled"]


@dataclass(frozen=True)
class Job:
    """One job, as it was when it was read."""

    id: str
    """Sorts by the time of submission."""
    model: str
    task: str
    """Name of the task to learn."""
    data: str
    """Name of the upload (`ObjectStore.put_file`), or a URI."""
    options: dict[str, Any]
    """Options of learning; opaque to the vault."""
    created_at: str
    """RFC 3339, UTC."""
    lineage: str | None = None
    """`Model.lineage` of the model it was submitted for, if given."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Further fields of the submission; opaque to the vault."""

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
    def uploaded(self) -> bool:
        """Whether its data is an upload in the store, to be deleted when the job is over."""
        return "://" not in self.data
