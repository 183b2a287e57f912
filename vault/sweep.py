"""Removing what nothing names any more."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from vault.errors import UnknownModel
from vault.log import Commit, CommitLog
from vault.models import Models
from vault.objects import Objects

GRACE = timedelta(days=1)
"""Blobs younger than this are spared: the commit that names them may be about to be published."""


def sweep(objects: Objects, models: Models, log: CommitLog, grace: timedelta = GRACE) -> list[str]:
    """Remove logs of deleted models and blobs that no commit names; the paths of the blobs removed.

    It may run while models learn. A publication must not take longer than `grace` from its first blob to its commit;
    `Objects.put_blob` makes young again what it finds there.

    Raises
    ------
    Damaged
        A model or a commit cannot be read, so what it names is not known; nothing is removed then.
    """
    blobs = objects.list("blobs")
    models.remove_remains()
    named = {
        f"blobs/{sha}"
        for model in objects.list_folders("models")
        for commit in _commits(log, model)
        for sha in _hashes(commit)
    }
    removed = []
    for path in blobs:
        # When it was written is asked last, right before it is removed.
        if path not in named and (written := objects.written_at(path)) and datetime.now(UTC) - written > grace:
            objects.delete(path)
            removed.append(path)
    return removed


def _commits(log: CommitLog, model: str) -> list[Commit]:
    try:
        return log.list(model)
    except UnknownModel:
        return []


def _hashes(commit: Commit) -> Iterator[str]:
    yield from commit.engrams
    yield from commit.kept
    yield from filter(None, (commit.recogniser, commit.certificate, commit.report))
