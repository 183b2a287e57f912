"""Tests of listings with foreign files, and with paths damaged in transit."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path

import pytest

from testing.data.models import MODEL, create, learn, submit
from vault.errors import StoreUnavailable
from vault.jobs.checkpoints import JobCheckpoints, last_checkpointed_attempt
from vault.maintenance.sweep import Sweep, SweepAges
from vault.storage.backend import ObjectEntry
from vault.storage.local import LocalBackend
from vault.storage.object_store import ObjectStore
from vault.vault import Vault

STRAYS = ("0", "notes.txt", "0000.json", "123456789.json")
"""One that sorts before all of ours, one after, and two that are almost valid names."""


class DamagedListings(LocalBackend):
    """A folder whose next listings contain one path outside the requested folder."""

    times = 0

    def paths(self, prefix: str, after: str | None = None, limit: int | None = None) -> Iterable[str]:
        found = [*super().paths(prefix, after, limit)]
        return [self._other(prefix, found[0]), *found[1:]]

    def entries(self, prefix: str) -> Iterable[ObjectEntry]:
        found = [*super().entries(prefix)]
        return [found[0]._replace(path=self._other(prefix, found[0].path)), *found[1:]]

    def _other(self, prefix: str, path: str) -> str:
        if not self.times:
            return path
        self.times -= 1
        return path.replace(prefix, "X" * len(prefix), 1)


class DamagedName(LocalBackend):
    """A folder whose next listing of `place` contains the name `name` damaged."""

    place = name = ""

    def folders(self, prefix: str | None) -> list[str]:
        return [self._other(prefix, name) for name in super().folders(prefix)]

    def entries(self, prefix: str) -> Iterable[ObjectEntry]:
        for entry in super().entries(prefix):
            yield entry._replace(path="/".join(self._other(prefix, part) for part in entry.path.split("/")))

    def _other(self, place: str | None, name: str) -> str:
        if (place, name) != (self.place, self.name):
            return name
        self.place = ""
        return name[:-1] + ("0" if name[-1] != "0" else "1")


def test_a_listing_of_something_else_is_asked_for_again(tmp_path: Path) -> None:
    storage = DamagedListings(tmp_path)
    objects = ObjectStore(storage, retry_seconds=20)
    objects.put("a/1", b"")
    objects.put("a/2", b"")
    storage.times = 2
    assert objects.list("a") == ["a/1", "a/2"]
    assert storage.times == 0
    storage.times = 2
    assert sorted(objects.sizes("a")) == ["a/1", "a/2"]
    storage.times = 1
    assert sorted(objects.written("a")) == ["a/1", "a/2"]
    assert storage.times == 0
    hasty = ObjectStore(storage)
    storage.times = 1
    with pytest.raises(StoreUnavailable, match="'X/"):
        hasty.list("a")


def test_no_sweep_takes_for_needless_what_one_harmed_listing_names_otherwise(vault: Vault) -> None:
    root = vault.settings.store_folder
    assert root is not None
    create(vault)
    learn(vault, "low", (0, 1))
    waiting = submit(vault, "mid", (2, 3))
    storage = DamagedName(root)
    for storage.place, storage.name in (("models", MODEL), ("jobs", waiting.id)):
        swept = Sweep(ObjectStore(storage), SweepAges.all(timedelta(seconds=-1)), dry_run=True).run()
        assert storage.place == "", "a name was damaged"
        assert (swept.uploads, swept.blobs) == ([], [])


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
        f"jobs/{waiting.id}/checkpoint",
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
    assert last_checkpointed_attempt(vault.objects, waiting.id) == 0
    checkpoints = JobCheckpoints(vault.objects, vault.jobs, waiting.id, number)
    assert checkpoints.load() is None
    checkpoints.save({}, {"a": b"a"}, ())
    assert last_checkpointed_attempt(vault.objects, waiting.id) == number
    swept = vault.sweep(dry_run=True)
    assert (swept.jobs, swept.uploads, swept.blobs) == ([], [], []), "they are in no sweep's way"
