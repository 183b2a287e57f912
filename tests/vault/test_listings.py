"""Names that no part of ours gave: somebody else's files, and listings that were harmed on their way."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.learned import MODEL, create, learn, submit
from vault.checkpoints import reached
from vault.errors import StoreUnavailable
from vault.folder import Folder
from vault.objects import Objects
from vault.vault import Vault

STRAYS = ("0", "notes.txt")
"""One that comes before all of ours, and one after."""


class Harmed(Folder):
    """A folder whose next listings are answered with one path that was not asked for."""

    times = 0

    def paths(self, prefix: str, after: str | None = None, limit: int | None = None) -> Iterable[str]:
        found = [*super().paths(prefix, after, limit)]
        if self.times:
            self.times -= 1
            found[0] = found[0].replace(prefix, "X" * len(prefix), 1)
        return found


def test_a_listing_of_something_else_is_asked_for_again(tmp_path: Path) -> None:
    storage = Harmed(tmp_path)
    objects = Objects(storage, retry_seconds=20)
    objects.put("a/1", b"")
    objects.put("a/2", b"")
    storage.times = 2
    assert objects.list("a") == ["a/1", "a/2"]
    assert storage.times == 0
    hasty = Objects(storage)
    storage.times = 1
    with pytest.raises(StoreUnavailable, match="'X/"):
        hasty.list("a")


def test_files_of_somebody_else_are_no_jobs_and_no_versions(vault: Vault) -> None:
    create(vault)
    learn(vault, "low", (0, 1))
    waiting = submit(vault, "mid", (2, 3))
    number = vault.jobs.start_attempt(waiting.id)
    lineage = vault.models.get(MODEL).lineage
    for folder in (
        "open",
        f"open/{MODEL}",
        "recent/all",
        f"recent/of/{MODEL}",
        f"models/{MODEL}/log/{lineage}",
        f"jobs/{waiting.id}/attempts",
        f"jobs/{waiting.id}/checkpoint/0001",
    ):
        for name in STRAYS:
            vault.objects.put(f"{folder}/{name}", b"")
    vault.objects.put(f"jobs/{waiting.id}/checkpoint/0001/about.json", b"{}")
    assert [job.id for job in vault.jobs.open_jobs(MODEL)] == [waiting.id]
    assert [job.id for job in vault.jobs.open_jobs()] == [waiting.id]
    ids = [job.id for job in vault.jobs.list()]
    assert len(ids) == 2
    assert [job.id for job in vault.jobs.list(MODEL)] == ids
    assert [job.id for job in vault.jobs.list(MODEL, limit=1)] == ids[:1], "the others' file comes first"
    assert vault.jobs.list(before=ids[-1]) == []
    assert vault.log.numbers(MODEL) == [0, 1]
    head = vault.log.head(MODEL)
    assert head is not None
    assert head.version == 1
    assert [attempt.number for attempt in vault.jobs.attempts(waiting.id)] == [number]
    assert reached(vault.objects, waiting.id) == 0
    swept = vault.sweep(dry_run=True)
    assert (swept.jobs, swept.uploads, swept.blobs) == ([], [], []), "they are in no sweep's way"
