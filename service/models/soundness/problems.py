"""Problems that keep versions of a model out of service, from being learned on, or from being had."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import engram.errors as learner
import vault.errors as store
from service.errors.exceptions import ArchitectureUnavailable, ModelUnavailable
from service.errors.problem_details import safe_message
from vault.commit_log import Commit

_RETRY_SECONDS = 5.0
_LONG_SECONDS = 60.0
"""Until a version is tried again that answers otherwise than certified, or has no engine: trying takes a while."""

_LONG = (learner.AnswersDiffer.code, learner.EngineMissing.code)


@dataclass(frozen=True)
class Problem:
    """Problem that keeps a version, or the whole model, out of service, from being learned on, or from being had."""

    code: str
    """Of the error: `damaged`, `not_found`, `unsupported_format` and so on."""
    detail: str
    version: int | None
    """The version that is meant; None when not even its number is known."""
    object: str | None
    """The stored object that is to blame, such as `blobs/<sha256>`, where one is."""

    @classmethod
    def of(cls, error: Exception, version: int | None = None) -> Problem:
        """The problem that `error` is."""
        if isinstance(error, store.VaultError | learner.EngramError):
            return cls(error.code, safe_message(error), version, getattr(error, "path", None))
        return cls("internal_error", f"It cannot be loaded ({type(error).__name__}); the log tells why.", version, None)


@dataclass(frozen=True)
class Trouble:
    """Why a version could not be taken into service, and when that was tried."""

    problem: Problem
    wanted: Commit | None
    """None when its record could not be read."""
    when: float

    def recent(self, wanted: Commit | None) -> bool:
        """Whether that version was tried a moment ago."""
        pause = _LONG_SECONDS if self.problem.code in _LONG else _RETRY_SECONDS
        return self.wanted == wanted and time.monotonic() - self.when < pause


def unavailable(model: str, problems: Sequence[Problem]) -> ModelUnavailable:
    """The error of a model that cannot be loaded, for these reasons."""
    missing = any(problem.code == learner.ArchitectureMissing.code for problem in problems)
    kind = ArchitectureUnavailable if missing else ModelUnavailable
    why = "".join(f" {problem.detail}" for problem in problems)
    return kind(f"The model {model} cannot be loaded at present.{why}")
