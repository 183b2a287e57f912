"""Tests of model records."""

from __future__ import annotations

from datetime import timedelta

import pytest

from testing.processes.races import race
from vault.commit_log import Commit
from vault.errors import Damaged, InvalidName, ModelExists, UnknownModel, UnknownVersion
from vault.maintenance.sweep import SweepAges
from vault.models import Models
from vault.vault import Vault

NAMES_REFUSED = ["", "A", "-a", "_a", "a/b", "../a", "a.b", "a b", "ä", "a" * 64, "a\n"]


def test_made_once(vault: Vault) -> None:
    model = vault.models.create("lines", {"backbone": "cnn"}, 3)
    assert (model.name, model.definition, model.format_version) == ("lines", {"backbone": "cnn"}, 3)
    assert vault.models.get("lines") == model
    assert vault.models.create("lines", {"backbone": "cnn"}, 3) == model
    for definition, version in (({"backbone": "mlp"}, 3), ({"backbone": "cnn"}, 1)):
        with pytest.raises(ModelExists):
            vault.models.create("lines", definition, version)
    assert vault.models.get("lines") == model


def test_of_racing_makers_one_wins_and_all_agree(vault: Vault) -> None:
    made = race(8, lambda _: vault.models.create("lines", {"backbone": "cnn"}))
    assert {model.lineage for model in made} == {vault.models.get("lines").lineage}


def test_made_while_its_namesake_is_deleted(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    old = vault.models.create("lines", {"backbone": "cnn"})
    create_json = vault.objects.create_json

    def late(path: str, document: dict[str, object], version: int) -> None:
        monkeypatch.undo()
        try:
            create_json(path, document, version)
        finally:
            vault.models.delete("lines")

    monkeypatch.setattr(vault.objects, "create_json", late)
    new = vault.models.create("lines", {"backbone": "mlp"})
    assert new.lineage != old.lineage
    assert vault.models.get("lines") == new


def test_what_lies_in_the_place_of_a_record_and_is_none(vault: Vault) -> None:
    assert vault.settings.store_folder is not None
    (vault.settings.store_folder / "models/lines/model.json").mkdir(parents=True)
    with pytest.raises(Damaged):
        vault.models.create("lines", {"backbone": "cnn"})


@pytest.mark.parametrize("name", NAMES_REFUSED)
def test_names(vault: Vault, name: str) -> None:
    with pytest.raises(InvalidName):
        vault.models.create(name, {})
    for call in (vault.models.get, vault.models.delete, vault.log.head, vault.delete_model):
        with pytest.raises(UnknownModel):
            call(name)
    with pytest.raises(UnknownModel):
        vault.jobs.submit(name, "task", "s3://data", {})
    assert vault.jobs.list(name) == vault.jobs.open_jobs(name) == []


def test_listed_by_name_and_paged(vault: Vault) -> None:
    for name in ("d", "b", "e", "a", "c", "0-_"):
        vault.models.create(name, {"n": name})
    vault.models.delete("b")
    assert [model.name for model in vault.models.list()] == ["0-_", "a", "c", "d", "e"]
    assert [model.name for model in vault.models.list(limit=3)] == ["0-_", "a", "c"]
    assert [model.name for model in vault.models.list(after="a", limit=2)] == ["c", "d"]
    assert vault.models.list(after="e") == []


def test_a_damaged_model_is_named_and_the_others_are_listed(vault: Vault) -> None:
    for name in "abc":
        vault.log.append(name, Commit.first(vault.models.create(name, {}), engrams=(vault.objects.put_blob(b"e"),)))
    vault.objects.put("models/b/model.json", b"{}")
    assert [model.name for model in vault.models.list()] == ["a", "c"]
    with pytest.raises(Damaged, match="models/b/model"):
        vault.models.get("b")
    # What is damaged is not what nobody needs.
    assert vault.sweep(SweepAges.all(timedelta(seconds=-1))).blobs == []
    assert len(vault.objects.list("models/b/log")) == len(vault.objects.list("blobs")) == 1


def test_a_namesake_sees_nothing_of_the_deleted_model(vault: Vault) -> None:
    old = vault.models.create("lines", {"backbone": "cnn"})
    first = Commit.first(old)
    second = first.following("learn", task="a")
    vault.log.append("lines", first)
    vault.log.append("lines", second)
    vault.models.delete("lines")
    assert vault.objects.list("models") == []
    with pytest.raises(UnknownModel):
        vault.log.head("lines")

    new = vault.models.create("lines", {"backbone": "mlp"})
    assert vault.log.head("lines") is None
    with pytest.raises(UnknownVersion):
        vault.log.read("lines", 1)
    # A worker that has not heard of it.
    with pytest.raises(UnknownModel):
        vault.log.append("lines", second.following("learn", task="b"))
    vault.log.append("lines", Commit.first(new))
    assert vault.log.list("lines") == [vault.log.read("lines", 0)]


def test_a_deletion_broken_off_leaves_a_clean_name(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    old = vault.models.create("lines", {})
    vault.log.append("lines", Commit.first(old))

    def crash(*_: object) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Models, "_remove_log", crash)
        with pytest.raises(KeyboardInterrupt):
            vault.models.delete("lines")
    with pytest.raises(UnknownModel):
        vault.models.get("lines")
    new = vault.models.create("lines", {})
    assert vault.log.head("lines") is None
    vault.log.append("lines", Commit.first(new))

    assert vault.models.remove_remains() == 1
    assert vault.models.remove_remains() == 0
    assert vault.log.head("lines") == vault.log.read("lines", 0)


def test_deleting_a_model_ends_its_jobs(vault: Vault) -> None:
    vault.models.create("lines", {})
    vault.models.create("other", {})
    upload = vault.settings.store_folder
    assert upload is not None
    (upload / "archive").write_bytes(b"zip")
    begun = vault.jobs.submit("lines", "a", vault.objects.put_file(upload / "archive"), {})
    token = vault.jobs.start_attempt(begun.id)
    waiting = vault.jobs.submit("lines", "b", "s3://bucket/data", {})
    kept = vault.jobs.submit("other", "a", "s3://bucket/data", {})
    vault.delete_model("lines")
    ended, running = vault.jobs.get(waiting.id), vault.jobs.get(begun.id)
    assert (ended.state, ended.error and ended.error["code"]) == ("cancelled", "cancelled")
    assert running.cancel_requested
    assert vault.jobs.finish(begun.id, "cancelled", token=token).state == "cancelled"
    assert vault.objects.list("data") == []
    assert [job.id for job in vault.jobs.open_jobs()] == [kept.id]


def test_a_sweep_removes_what_no_commit_names(vault: Vault) -> None:
    names = [vault.objects.put_blob(str(number).encode()) for number in range(7)]
    kept = vault.models.create("kept", {})
    first = Commit.first(kept, engrams=(names[0],), recogniser=names[1], kept=(names[2],))
    vault.log.append("kept", first)
    vault.log.append("kept", first.following("learn", engrams=(names[0], names[3]), report=names[4]))
    gone = vault.models.create("gone", {})
    vault.log.append("gone", Commit.first(gone, engrams=(names[0], names[5])))
    vault.models.delete("gone")

    assert vault.sweep().blobs == []
    removed = vault.sweep(SweepAges.all(timedelta(seconds=-1))).blobs
    assert removed == sorted(f"blobs/{name}" for name in names[5:])
    for name in names[:5]:
        vault.objects.get_blob(name)
