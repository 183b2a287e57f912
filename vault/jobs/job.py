"""What is to be learned, who tried, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from vault.coordination.events import FINAL

Outcome = Literal["succeeded", "failed", "cancelled"]
State = Literal["queued", "running", "succeeded", "failed", "cancelled"]


@dataclass(frozen=True)
class Job:
    """A job as it stood when it was asked for."""

    id: str
    """Sorts by the moment of submission."""
    model: str
    task: str
    """Name of the task to learn."""
    data: str
    """Name of the upload (`Objects.put_file`), or a URI."""
    options: dict[str, Any]
    """How to learn; opaque here."""
    created_at: str
    """RFC 3339, UTC."""
    lineage: str | None = None
    """`Model.lineage` of the model it was submitted for, if told."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Whatever else was submitted; opaque here."""

    state: State = "queued"
    attempts: int = 0
    """Attempts begun."""
    cancel_requested: bool = False
    phase: str | None = None
    """Of a running job; of one that failed or was cancelled the last one, as long as Redis knows."""
    progress: dict[str, Any] = field(default_factory=dict)
    """Figures reported with it: `fraction`, `epoch` and such; may be empty. Of a success only a `fraction` of 1."""
    error: dict[str, Any] | None = None
    """`code` and `detail` of a job that failed or was cancelled."""
    result: dict[str, Any] | None = None
    finished_at: str | None = None
    """RFC 3339, UTC."""

    @property
    def over(self) -> bool:
        """Whether it has a result, which no longer changes."""
        return self.state in FINAL

    @property
    def uploaded(self) -> bool:
        """Whether its data lies in the store, to be deleted when the job is over."""
        return "://" not in self.data
