"""Garbage collection of blobs that neither a commit nor a backbone names."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from vault.backbones import Backbones
from vault.commit_log import Commit, CommitLog
from vault.errors import AlreadyExists, UnknownModel, UnknownVersion
from vault.jobs.decisions import Decisions
from vault.models import Models
from vault.storage.object_store import CONDEMNED, STALE_MARK, ObjectStore


def remove_orphans(objects: ObjectStore, grace: timedelta, dry_run: bool = False) -> list[str]:
    """Remove logs of deleted models, and blobs that nothing names; returns the paths of the blobs removed.

    Commits name blobs, decided ones as well, and so do backbones, for `grace` beyond their deletion. It may run while
    models learn. A publication must not take longer than `grace` from its first blob to its decision
    (`vault.jobs.decisions`), which names the blobs as a commit does; `ObjectStore.put_blob` renews the age of a blob
    that exists. A writer that renews a blob at the very moment it is removed here sees the mark `condemned/{sha}`, and
    stores the blob once more when the mark is gone.

    Raises
    ------
    Unreadable, NotFound
        A model, a commit, a decision or a backbone cannot be read or is missing, so that the blobs it names are
        unknown; nothing is removed then.
    """
    models = Models(objects)
    log = CommitLog(objects, models)
    # First: objects stored after this listing are not considered.
    blobs = objects.written("blobs")
    if not dry_run:
        models.remove_remains(grace)
    # Before the commits: a job that gets its result meanwhile has its version among these.
    decisions = Decisions(objects)
    decided = [commit for _, path in decisions.pending() if (commit := decisions.commit(path))]
    # Listed twice: a name damaged in transit would leave its model's blobs unreferenced.
    names = {*objects.list_folders("models"), *objects.list_folders("models")}
    commits = [*decided, *(commit for model in names for commit in _commits(log, model))]
    named = {f"blobs/{sha}" for commit in commits for sha in _hashes(commit)}
    named |= {f"blobs/{sha}" for sha in Backbones(objects).needed_weights(grace)}
    oldest = datetime.now(UTC) - grace
    orphans = sorted(path for path, written in blobs.items() if path not in named and written < oldest)
    if dry_run:
        return orphans
    _remove_stale_marks(objects)
    return [path for path in orphans if _remove(objects, path, oldest)]


def _remove(objects: ObjectStore, path: str, oldest: datetime) -> bool:
    """Remove one blob unless it was renewed; returns whether it was removed."""
    mark = f"{CONDEMNED}/{path.partition('/')[2]}"
    try:
        objects.put_new(mark, b"")
    except AlreadyExists:
        return False  # another sweep is removing it
    try:
        written = objects.written_at(path)
        if written is None or written >= oldest:
            return False
        objects.delete(path)
        return True
    finally:
        objects.delete(mark)


def _remove_stale_marks(objects: ObjectStore) -> None:
    """Remove the marks of sweeps that died."""
    for mark, written in objects.written(CONDEMNED).items():
        if datetime.now(UTC) - written > STALE_MARK:
            objects.delete(mark)


def _commits(log: CommitLog, model: str) -> list[Commit]:
    try:
        return log.list(model)
    except (UnknownModel, UnknownVersion):
        return []  # deleted, perhaps a moment ago


def _hashes(commit: Commit) -> Iterator[str]:
    yield from commit.engrams
    yield from commit.kept
    yield from filter(None, (commit.recogniser, commit.certificate, commit.report))
