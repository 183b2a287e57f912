"""Tests of backbone records, and of the format number of what names backbones."""

from __future__ import annotations

from datetime import timedelta

import pytest

from testing.processes.races import race
from vault.backbones import BackboneRecord
from vault.commit_log import Commit
from vault.errors import (
    BackboneExists,
    BackboneInUse,
    Damaged,
    InvalidName,
    UnknownBackbone,
    Unreadable,
    UnsupportedRecord,
)
from vault.jobs.decisions import Decision
from vault.maintenance.sweep import SweepAges
from vault.models import WITH_BACKBONES
from vault.storage import documents
from vault.vault import Vault

LITE0 = {"architecture": "timm/tf_efficientnet_lite0"}
BEFORE_BACKBONES = 2
"""The newest format of the last release that knows no backbones."""


def add(vault: Vault, name: str = "lite0", weights: bytes = b"weights") -> BackboneRecord:
    return vault.backbones.create(name, LITE0, vault.objects.put_blob(weights))


def have(vault: Vault, record: BackboneRecord, model: str = "lines") -> Commit:
    """Make a model of a backbone."""
    made = vault.models.create(model, {"backbone": record.name}, WITH_BACKBONES)
    first = Commit.first(made, engrams=(record.weights,), backbones=(record.weights,))
    vault.log.append(model, first)
    return first


def test_made_once(vault: Vault) -> None:
    record = add(vault)
    assert (record.name, record.number, record.description) == ("lite0", 1, LITE0)
    assert vault.backbones.get("lite0") == record == add(vault)
    for description, weights in ((LITE0, "0" * 64), ({}, record.weights)):
        with pytest.raises(BackboneExists, match="of other "):
            vault.backbones.create("lite0", description, weights)
    assert vault.backbones.list() == [record]


@pytest.mark.parametrize("name", ["", "A", "a/b", "../a", "a.b", "ä", "a" * 64, "a\n"])
def test_names(vault: Vault, name: str) -> None:
    with pytest.raises(InvalidName):
        vault.backbones.create(name, LITE0, "0" * 64)
    with pytest.raises(UnknownBackbone):
        vault.backbones.get(name)


def test_of_racing_makers_one_wins(vault: Vault) -> None:
    blobs = [vault.objects.put_blob(bytes([number % 2])) for number in range(8)]

    def make(number: int) -> str:
        try:
            return vault.backbones.create("lite0", LITE0, blobs[number]).weights
        except BackboneExists:
            return ""

    assert set(race(8, make)) == {"", vault.backbones.get("lite0").weights}
    assert len(vault.objects.list("backbones")) == 1


def test_a_name_is_free_again_and_its_next_bearer_safe_from_who_meant_the_one_before(vault: Vault) -> None:
    first = add(vault)
    vault.delete_backbone("lite0")
    for missing in (vault.backbones.get, vault.delete_backbone):
        with pytest.raises(UnknownBackbone):
            missing("lite0")
    assert vault.backbones.list() == []
    second = add(vault, weights=b"others")
    assert second.number == 2
    vault.backbones.delete(first)
    assert vault.backbones.get("lite0") == second
    assert vault.backbones.list() == [second]


def test_listed_in_pages(vault: Vault) -> None:
    names = ["a", "b", "c", "d"]
    for name in names:
        add(vault, name)
    vault.delete_backbone("b")
    vault.objects.put("backbones/c/00000001.json", b"{]")
    assert [one.name for one in vault.backbones.list()] == ["a", "d"]
    assert [one.name for one in vault.backbones.list(limit=2)] == ["a", "d"]
    assert [one.name for one in vault.backbones.list("a", 1)] == ["d"]


def test_what_a_model_has_is_not_deleted(vault: Vault) -> None:
    record = add(vault)
    have(vault, record, "lines")
    have(vault, record, "curves")
    with pytest.raises(BackboneInUse, match="curves, lines"):
        vault.delete_backbone("lite0")
    vault.delete_model("lines")
    vault.log.append("curves", vault.log.read("curves", 0).following("budget"))
    with pytest.raises(BackboneInUse, match="curves"):
        vault.delete_backbone("lite0")
    vault.delete_model("curves")
    vault.delete_backbone("lite0")


def test_of_two_names_of_what_a_model_has_either_is_deleted_but_not_both(vault: Vault) -> None:
    record = add(vault)
    add(vault, "other", b"others")
    have(vault, record)
    for last, deleted in (("lite0", "twin"), ("twin", "lite0")):
        add(vault, "lite0")
        add(vault, "twin")
        vault.delete_backbone(deleted)
        with pytest.raises(BackboneInUse, match="lines"):
            vault.delete_backbone(last)
        assert [one.name for one in vault.backbones.list()] == sorted([last, "other"])
    assert vault.sweep(SweepAges.all(timedelta(seconds=-1))).blobs == []
    vault.delete_model("lines")
    vault.delete_backbone("twin")
    assert vault.sweep(SweepAges.all(timedelta(seconds=-1))).blobs == [f"blobs/{record.weights}"]


def test_nothing_is_deleted_while_a_version_cannot_be_read(vault: Vault) -> None:
    record = add(vault)
    first = have(vault, record)
    vault.objects.put(f"models/lines/log/{first.lineage}/00000000.json", b"{]")
    with pytest.raises(Damaged):
        Vault(vault.settings, vault.objects, vault.redis).delete_backbone("lite0")
    assert vault.backbones.get("lite0") == record


@pytest.mark.parametrize(
    "harm",
    [
        {"name": "other"},
        {"number": 2},
        {"number": "1"},
        {"weights": "../models"},
        {"weights": None},
        {"description": 1},
    ],
)
def test_a_record_that_is_none(vault: Vault, harm: dict[str, object]) -> None:
    add(vault)
    path = "backbones/lite0/00000001.json"
    vault.objects.put_json(path, vault.objects.get_json(path) | harm)
    with pytest.raises(Damaged, match=path):
        vault.backbones.get("lite0")


def test_only_models_over_backbones_are_of_the_new_format(vault: Vault) -> None:
    plain = vault.models.create("plain", {})
    commit = Commit.first(plain)
    assert (commit.format, commit.following("decoder", decoding={}).format) == (1, 2)
    assert "backbones" not in commit.to_dict()
    over = have(vault, add(vault))
    assert (over.format, over.following("decoder", decoding={}).format) == (3, 3)
    assert Commit.from_dict(over.to_dict()) == over
    with pytest.raises(TypeError, match="not among the engrams"):
        Commit.from_dict(over.to_dict() | {"engrams": []})


def test_an_earlier_release_refuses_them_and_has_the_others(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    """That release reads records as this one does, up to a lower number."""
    vault.log.append("plain", Commit.first(vault.models.create("plain", {})))
    record = add(vault)
    first = have(vault, record)
    job = vault.jobs.submit("lines", "a", "s3://bucket/data.zip", {})
    vault.jobs.decisions.create(job.id, Decision.after(None, first.following("learn", job=job.id)))
    monkeypatch.setattr(documents, "FORMAT", BEFORE_BACKBONES)
    earlier = Vault(vault.settings, vault.objects, vault.redis)
    for path in (
        "models/lines/model.json",
        f"models/lines/log/{first.lineage}/00000000.json",
        f"jobs/{job.id}/decisions/0001.json",
    ):
        with pytest.raises(UnsupportedRecord):
            vault.objects.get_json(path)
    for refused in (earlier.models.get, earlier.log.head):
        with pytest.raises(Unreadable):
            refused("lines")
    assert [model.name for model in earlier.models.list()] == ["plain"]
    head = earlier.log.head("plain")
    assert head is not None
    assert head.version == 0
