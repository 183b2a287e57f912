"""Protocol of validators, which read the contents of blobs that the vault only stores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from vault.classes.names import ambiguity
from vault.commit_log import Commit
from vault.errors import Damaged
from vault.models import Model

Role = Literal["engram", "weights", "recogniser", "kept", "certificate", "report"]


@dataclass(frozen=True)
class DecoderChange:
    """Change of what a decoder makes of encoded images since a version was certified."""

    detail: str
    """A sentence that names the decoder."""
    explained: bool
    """Whether the libraries that decode are others than then; else the same ones give other pixels."""


@dataclass(frozen=True)
class AnswersComparison:
    """Comparison of what a version answers here with its certificate."""

    changed: tuple[str, ...] = ()
    """The tasks that do not answer as certified."""
    elsewhere: str | None = None
    """Why answers cannot be compared as bytes, a sentence; None where they can be, and were."""
    near: bool = False
    """Whether there all of them lie near the certified ones, as far as another environment can tell."""


class Validator(Protocol):
    """Validator of definitions, blobs and versions; raises VaultError for what is not valid."""

    def definition(self, path: str, definition: Mapping[str, Any], decoding: Mapping[str, Any] | None = None) -> None:
        """Validate a model's definition, with the decoding that a version names; `path` is the record of either."""

    def blob(self, path: str, role: Role, data: bytes) -> None:
        """Validate one blob by itself."""

    def backbone(self, path: str, description: Mapping[str, Any]) -> None:
        """Validate the description of a network that a user brought; `path` is its record."""

    def version(self, model: Model, commit: Commit) -> AnswersComparison:
        """Load a version and compare its answers with its certificate, if it has one."""

    def decoder(self, model: Model, commit: Commit) -> DecoderChange | None:
        """The change of the pixels that a version's decoder gives here since the version was certified, if any."""


def blobs_of(commit: Commit) -> dict[str, Role]:
    """The blobs that a commit names, with their roles."""
    named: dict[str, Role] = dict.fromkeys(commit.engrams, "engram")
    named |= dict.fromkeys(commit.backbones, "weights")
    named |= dict.fromkeys(commit.kept, "kept")
    singles: tuple[tuple[str | None, Role], ...] = (
        (commit.recogniser, "recogniser"),
        (commit.certificate, "certificate"),
        (commit.report, "report"),
    )
    return named | {sha: role for sha, role in singles if sha}


def check_order(path: str, commit: Commit) -> None:
    """Raise Damaged when a commit's parent is not the version before, or its names do not tell tasks apart."""
    parent = commit.version - 1 if commit.version else None
    if commit.parent != parent:
        raise Damaged(path, f"its parent is {commit.parent}, not {parent}")
    if commit.names is not None and (why := ambiguity(commit)) is not None:
        raise Damaged(path, why)
