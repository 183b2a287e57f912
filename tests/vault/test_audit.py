"""Tests of the audit log: order, filters, pages, and completion after deaths."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vault import approval, audit
from vault.audit import Audit, AuditEntry
from vault.commit_log import Commit
from vault.errors import InvalidCursor
from vault.keys import Keys
from vault.settings import VaultSettings
from vault.storage.object_store import ObjectStore
from vault.vault import Vault

ANNA: dict[str, Any] = {"kind": "key", "id": "0" * 16, "name": "anna"}
BERT: dict[str, Any] = {"kind": "cli", "id": None, "name": "bert"}


def entry(minute: int, action: str = "activate", model: str | None = "lines", by: dict[str, Any] = ANNA) -> AuditEntry:
    return AuditEntry(f"2026-11-29T12:{minute:02d}:00.000000Z", action, f"deeds/{minute}", by, model)


class AuditContract:
    """Contract tests; a subclass provides the settings of the storage."""

    @pytest.fixture
    def settings(self) -> VaultSettings:
        raise NotImplementedError

    @pytest.fixture
    def vault(self, settings: VaultSettings) -> Iterator[Vault]:
        with Vault.connect(settings) as vault:
            yield vault

    def test_the_newest_comes_first_and_each_once(self, vault: Vault) -> None:
        for minute in (3, 1, 2, 1, 3):
            vault.audit.write(entry(minute))
        assert vault.audit.list() == [entry(3), entry(2), entry(1)]

    def test_pages_and_filters(self, vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(audit, "_PAGE", 3)
        entries = [entry(one, ("learn", "activate")[one % 2], ("a", "a-b", None)[one % 3]) for one in range(12)]
        for one in entries:
            vault.audit.write(one)
        entries.reverse()
        assert vault.audit.list() == entries
        filters: list[dict[str, Any]] = [{}, {"action": "learn"}, {"model": "a"}]
        for asked in (*filters, {"model": "a-b", "action": "activate"}):
            wanted = [
                one
                for one in entries
                if asked.get("action") in (None, one.action) and asked.get("model") in (None, one.model)
            ]
            assert vault.audit.list(**asked) == wanted
            paged: list[AuditEntry] = []
            while page := vault.audit.list(paged[-1].id if paged else None, 2, **asked):
                paged += page
            assert paged == wanted
        assert vault.audit.list(since=entries[4].at) == entries[:5]
        assert vault.audit.list(since="2026-11-29T14:07:00+02:00") == entries[:5]
        with pytest.raises(InvalidCursor):
            vault.audit.list("nothing")


class TestAuditInAFolder(AuditContract):
    @pytest.fixture
    def settings(self, vault_settings: VaultSettings) -> VaultSettings:
        return vault_settings


class TestAuditInABucket(AuditContract):
    @pytest.fixture
    def settings(self, s3_settings: VaultSettings) -> VaultSettings:
        return s3_settings


def folder(vault: Vault) -> Path:
    found = vault.settings.store_folder
    assert found is not None
    return found


def test_a_damaged_entry_does_not_hide_the_others(vault: Vault) -> None:
    for minute in range(3):
        vault.audit.write(entry(minute))
    path = folder(vault) / "audit" / f"{entry(1).id}.json"
    path.write_bytes(path.read_bytes().replace(b"anna", b"otto"))
    assert vault.audit.list() == [entry(2), entry(0)]


def deeds(vault: Vault) -> list[AuditEntry]:
    """Everything that can be done, without its entries: as if each process had died after its deed."""
    model = vault.models.create("lines", {})
    commits = [Commit.first(model, by=ANNA)]
    kinds: tuple[Any, ...] = ("adopt", "budget", "decoder", "publish")
    commits += [commits[0].following(kind, by=ANNA, budget={"layer": at}) for at, kind in enumerate(kinds)]
    commits.append(approval.activated(commits[0], 0, by=BERT))
    commits.append(commits[0].following("reject", target=0, by=BERT))
    commits.append(commits[0].following("learn", job="x"))
    made = [replace(one, version=number, parent=number - 1 if number else None) for number, one in enumerate(commits)]
    for commit in made:
        vault.log.append("lines", commit)
    job = vault.jobs.submit("lines", "low", "s3://x", {}, extra={"by": ANNA})
    vault.jobs.submit("lines", "mid", "s3://x", {})
    vault.jobs.request_cancel(job.id, BERT)
    key, _ = vault.keys.create("line 4", "predict", by=ANNA)
    vault.keys.create("nobody's", "predict")
    revocation = vault.keys.revoke(key.id, BERT)
    backbone = vault.backbones.create("net", {}, "0" * 64, by=ANNA)
    deleted = vault.backbones.delete(backbone, BERT)
    cancelled = vault.jobs.cancellation(job.id)
    assert cancelled is not None
    pairs = zip([None, *made], made, strict=False)
    found = [audit.of_version("lines", one, before) for before, one in pairs] + [audit.of_job(job)]
    found += [
        audit.of_cancellation(job, cancelled["requested_at"], BERT),
        audit.of_key(key, ANNA),
        audit.of_revocation(revocation, BERT),
        audit.of_backbone(backbone, ANNA),
        audit.of_deleted_backbone("net", 1, deleted["deleted_at"], BERT),
    ]
    return sorted((one for one in found if one is not None), key=lambda one: one.id)


def test_whoever_died_after_a_deed_owes_its_entry(vault: Vault) -> None:
    expected = deeds(vault)
    assert len(expected) == 13
    assert {tuple(one.changed) for one in expected if one.changed is not None} == {("budget",)}
    assert vault.audit.list() == []
    vault.complete_audit()
    assert vault.audit.list() == expected
    before = {path.name: path.read_bytes() for path in (folder(vault) / "audit").iterdir()}
    shutil.rmtree(folder(vault) / "sweeps")  # so that all is looked at again
    vault.complete_audit()
    assert {path.name: path.read_bytes() for path in (folder(vault) / "audit").iterdir()} == before


def test_only_what_came_since_the_last_completion_is_read(vault: Vault) -> None:
    expected = deeds(vault)
    vault.complete_audit()
    shutil.rmtree(folder(vault) / "audit")
    hours_ago = time.time() - 2 * 3600
    for path in folder(vault).rglob("*.json"):
        os.utime(path, (hours_ago, hours_ago))
    vault.keys.create("late", "predict", by=BERT)
    vault.complete_audit()
    assert [one.action for one in vault.audit.list()] == ["create_key"]
    assert len(expected) == 13


def test_deletions_are_told_whenever_they_were_done(vault: Vault) -> None:
    for name in ("whole", "begun", "between"):
        vault.log.append(name, Commit.first(vault.models.create(name, {}), by=ANNA))
    # Its creation has no entry yet either.
    vault.delete_model("whole", BERT)
    assert [(one.action, one.by) for one in vault.audit.list()] == [("delete", BERT), ("create", ANNA)]
    begun, between = vault.models.get("begun"), vault.models.get("between")
    vault._completion.begin_deletion(begun, BERT)
    vault._completion.begin_deletion(between, BERT)
    vault.models.delete("between")
    vault.complete_audit()
    assert {one.model for one in vault.audit.list(action="delete")} == {"whole", "between"}
    assert vault.models.get("begun") == begun
    (mark,) = (folder(vault) / "deletions").iterdir()
    hours_ago = time.time() - 2 * 3600
    os.utime(mark, (hours_ago, hours_ago))
    vault.complete_audit()
    assert list((folder(vault) / "deletions").iterdir()) == []
    vault.delete_model("begun", ANNA)
    assert [one.by for one in vault.audit.list(model="begun", action="delete")] == [ANNA]


def test_a_deed_is_told_although_its_entry_cannot_be_written(
    vault: Vault, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (folder(vault) / "audit").write_bytes(b"")  # where a folder is to be
    vault.audit.record(entry(1))
    assert "the audit log lacks activate" in caplog.text


def test_each_deed_is_told_once_after_twenty_kills(vault: Vault) -> None:
    """A process makes keys and is killed, twenty times; then the log is completed."""
    for round_ in range(20):
        child = os.fork()
        if child == 0:
            _make_keys(ObjectStore.connect(vault.settings))
        time.sleep(0.03 + 0.004 * round_)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    there = {key.id for key, _ in vault.keys.list()}
    told = [one.key for one in vault.audit.list()]
    assert len(told) <= len(there)
    vault.complete_audit()
    told = [one.key for one in vault.audit.list()]
    assert len(told) == len(there) > 10
    assert set(told) == there


def _make_keys(objects: ObjectStore) -> None:
    """Make keys until the process is killed."""
    try:
        keys, log = Keys(objects), Audit(objects)
        while True:
            key, _ = keys.create("many", "predict", by=ANNA)
            log.record(audit.of_key(key, ANNA))
    finally:
        os._exit(1)
