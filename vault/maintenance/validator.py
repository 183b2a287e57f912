"""Protocol of validators, which read the contents of blobs that the vault only stores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Protocol

from vault.commit_log import Commit
from vault.errors import Damaged
from vault.models import Model

Role = Literal["engram", "recogniser", "kept", "certificate", "report"]


class Validator(Protocol):
    """Validator of definitions, blobs and versions; raises VaultError for what is not valid."""

    def definition(self, path: str, definition: Mapping[str, Any]) -> None:
        """Validate the definition inside the model record `path`."""

    def blob(self, path: str, role: Role, data: bytes) -> None:
        """Validate one blob by itself."""

    def version(self, model: Model, commit: Commit) -> list[str] | None:
        """Load a version and compare its answers with its certificate.

        Returns
        -------
        list of str, or None
            The tasks whose answers differ; None if they cannot be compared in this environment.
        """


def blobs_of(commit: Commit) -> dict[str, Role]:
    """The blobs that a commit names, with their roles."""
    named: dict[str, Role] = dict.fromkeys(commit.engrams, "engram")
    named |= dict.fromkeys(commit.kept, "kept")
    singles: tuple[tuple[str | None, Role], ...] = (
        (commit.recogniser, "recogniser"),
        (commit.certificate, "certificate"),
        (commit.report, "report"),
    )
    return named | {sha: role for sha, role in singles if sha}


def check_order(path: str, commit: Commit) -> None:
    """Raise Damaged when a commit's parent is not the version before."""
    parent = commit.version - 1 if commit.version else None
    if commit.parent != parent:
        raise Damaged(path, f"its parent is {commit.parent}, not {parent}")
