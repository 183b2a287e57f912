"""Tests of sweeps, checks, exports and imports of backbones and of what names them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import safetensors.torch
import torch

from service.cli.validator import LearnerValidator
from testing.data.models import MODEL, create
from testing.data.networks import DESCRIPTION
from vault.backbones import BackboneRecord
from vault.commit_log import Commit
from vault.errors import Damaged, InvalidBundle, UnknownModel, UnsupportedRecord
from vault.maintenance.bundle import BundleReader, BundleWriter
from vault.maintenance.check import check
from vault.maintenance.export import export_model, import_model
from vault.maintenance.sweep import SweepAges
from vault.models import WITH_BACKBONES
from vault.settings import VaultSettings
from vault.storage import documents
from vault.storage.documents import seal
from vault.storage.object_store import ObjectStore
from vault.vault import Vault

NONE = SweepAges.all(timedelta(seconds=-1))
"""Ages at which everything is old enough."""
WEIGHTS = safetensors.torch.save({"weight": torch.ones(2)})


def add(vault: Vault, name: str = "lite0", data: bytes = WEIGHTS) -> BackboneRecord:
    return vault.backbones.create(name, DESCRIPTION, vault.objects.put_blob(data))


def have(vault: Vault, record: BackboneRecord) -> Commit:
    """Make a model of a backbone; what it reads besides is as of another model."""
    create(vault)
    head = vault.log.head(MODEL)
    assert head is not None
    model = vault.models.get(MODEL)
    vault.models.delete(MODEL)
    model = vault.models.create(MODEL, model.definition, WITH_BACKBONES)
    first = replace(head, lineage=model.lineage, engrams=(*head.engrams, record.weights), backbones=(record.weights,))
    vault.log.append(MODEL, first)
    return first


@pytest.fixture
def elsewhere(tmp_path: Path, vault_settings: VaultSettings) -> Iterator[Vault]:
    """Another vault, which is empty."""
    there = vault_settings.model_copy(update={"store_url": str(tmp_path / "elsewhere")})
    with Vault.connect(there) as vault:
        yield vault


def test_weights_go_once_neither_a_backbone_nor_a_version_names_them(vault: Vault) -> None:
    record = add(vault)
    blob = f"blobs/{record.weights}"
    assert vault.sweep(NONE).blobs == []
    vault.delete_backbone("lite0")
    patient = replace(NONE, blobs=timedelta(hours=2))
    assert vault.sweep(patient).blobs == []  # a model may be under way
    again = add(vault)
    assert vault.sweep(NONE).blobs == []
    have(vault, again)
    vault.backbones.delete(again)  # at the moment when the model was made
    assert blob not in vault.sweep(NONE).blobs
    vault.delete_model(MODEL)
    assert blob in vault.sweep(NONE).blobs
    assert vault.backbones.list() == []


def test_weights_of_a_deleted_backbone_are_kept_for_the_grace_since_then(vault: Vault) -> None:
    record = add(vault)
    vault.delete_backbone("lite0")
    needed = vault.backbones.needed_weights
    assert needed(timedelta(hours=1)) == {record.weights}
    assert needed(timedelta(seconds=-1)) == set()


@pytest.mark.parametrize("object", ["backbones/lite0/00000001.json", "backbones/lite0/00000001.deleted.json"])
def test_no_blob_goes_while_a_backbone_cannot_be_read(vault: Vault, object: str) -> None:
    record = add(vault)
    orphan = vault.objects.put_blob(b"orphan")
    vault.objects.put(object, b"{]")
    deleted = "deleted" in object  # of which it is enough to be there
    assert vault.sweep(NONE).blobs == (sorted([f"blobs/{orphan}", f"blobs/{record.weights}"]) if deleted else [])


def test_an_earlier_release_sweeps_nothing_that_a_model_has(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    have(vault, add(vault))
    vault.objects.put_blob(b"orphan")
    monkeypatch.setattr(documents, "FORMAT", 2)
    assert vault.sweep(NONE).blobs == []


def test_a_check_reads_backbones_and_their_weights(vault: Vault) -> None:
    record, other = add(vault), add(vault, "other", b"others")
    vault.delete_backbone("other")
    have(vault, record)
    found = check(vault.objects, LearnerValidator(vault.objects))
    assert (found.backbones, found.problems) == (1, [])
    assert f"blobs/{other.weights}" in vault.objects.list("blobs")
    assert found.orphans == 1


@pytest.mark.parametrize(
    ("harm", "code"),
    [("weights", "damaged"), ("no weights", "not_found"), ("record", "damaged"), ("pickle", "damaged")],
)
@pytest.mark.parametrize("had", [True, False])
def test_a_check_finds_what_is_harmed(vault: Vault, harm: str, code: str, had: bool) -> None:
    record = add(vault, data=b"\x80\x04." if harm == "pickle" else WEIGHTS)
    if had:
        have(vault, record)
    path = "backbones/lite0/00000001.json" if harm == "record" else f"blobs/{record.weights}"
    if harm == "no weights":
        vault.objects.delete(path)
    elif harm != "pickle":
        vault.objects.put(path, b"{]")
    found = check(vault.objects, LearnerValidator(vault.objects))
    assert {(problem.object, problem.code) for problem in found.problems} == {(path, code)}
    one = check(vault.objects, LearnerValidator(vault.objects), MODEL) if had else None
    assert one is None or [problem.object for problem in one.problems] == ([] if harm == "record" else [path])


@pytest.mark.parametrize(
    ("change", "code"),
    [({"levels": []}, "damaged"), ({"architecture": 1}, "damaged"), ({"format": 2}, "unsupported_format")],
)
def test_a_check_reads_descriptions(vault: Vault, change: dict[str, object], code: str) -> None:
    vault.backbones.create("lite0", DESCRIPTION | change, vault.objects.put_blob(WEIGHTS))
    found = check(vault.objects, LearnerValidator(vault.objects))
    assert [(one.object, one.code) for one in found.problems] == [("backbones/lite0/00000001.json", code)]


def bundle(vault: Vault, folder: Path, backbones: tuple[str, ...] = ("lite0",)) -> Path:
    assert export_model(vault.objects, MODEL, folder / "bundle").backbones == backbones
    return folder / "bundle"


def test_a_model_takes_its_backbone_along(vault: Vault, elsewhere: Vault, tmp_path: Path) -> None:
    record = add(vault)
    add(vault, "unused", b"others")
    have(vault, record)
    file = bundle(vault, tmp_path)
    done = import_model(elsewhere.objects, file, LearnerValidator(elsewhere.objects))
    assert done.backbones == ("lite0",)
    there = elsewhere.backbones.get("lite0")
    assert (there.description, there.weights) == (record.description, record.weights)
    assert [one.name for one in elsewhere.backbones.list()] == ["lite0"]
    head = elsewhere.log.head(MODEL)
    assert head is not None
    assert (head.backbones, head.format) == ((record.weights,), WITH_BACKBONES)
    assert check(elsewhere.objects, LearnerValidator(elsewhere.objects)).problems == []
    assert import_model(elsewhere.objects, file, LearnerValidator(elsewhere.objects), "twin").backbones == ("lite0",)
    whole = file.read_bytes()
    assert bundle(elsewhere, tmp_path).read_bytes() == whole


def test_a_name_that_is_another_backbones_stays_so(vault: Vault, elsewhere: Vault, tmp_path: Path) -> None:
    have(vault, add(vault))
    own = add(elsewhere, data=b"others")
    done = import_model(elsewhere.objects, bundle(vault, tmp_path), LearnerValidator(elsewhere.objects))
    assert done.backbones == ()
    assert elsewhere.backbones.list() == [own]
    assert elsewhere.sweep(NONE).blobs == []


def test_a_model_without_its_name_is_exported_all_the_same(vault: Vault, elsewhere: Vault, tmp_path: Path) -> None:
    record = add(vault)
    have(vault, record)
    vault.backbones.delete(record)
    done = import_model(elsewhere.objects, bundle(vault, tmp_path, ()), LearnerValidator(elsewhere.objects))
    assert (done.backbones, elsewhere.objects.get_blob(record.weights)) == ((), WEIGHTS)


def test_an_earlier_release_refuses_the_bundle(
    vault: Vault, elsewhere: Vault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    have(vault, add(vault))
    file = bundle(vault, tmp_path)
    monkeypatch.setattr(documents, "FORMAT", 2)
    with pytest.raises(UnsupportedRecord):
        import_model(elsewhere.objects, file, LearnerValidator(elsewhere.objects))
    with pytest.raises(UnknownModel):
        elsewhere.models.get(MODEL)
    assert ObjectStore.list_top(elsewhere.objects) in ([], ["probe"])


@pytest.mark.parametrize("harm", [{"weights": "0" * 64}, {"name": "../lite0"}, {"description": None}])
def test_a_bundle_with_a_backbone_that_is_none_is_refused(
    vault: Vault, elsewhere: Vault, tmp_path: Path, harm: dict[str, object]
) -> None:
    have(vault, add(vault))
    with BundleReader(bundle(vault, tmp_path)) as whole:
        members = {name: whole.read(name) for name in whole.members}
        document = whole.read_json("model.json")
    document["backbones"][0] |= harm
    members["model.json"] = seal(document, WITH_BACKBONES)
    with (tmp_path / "harmed").open("wb") as file:
        listed = {name: (len(data), hashlib.sha256(data).hexdigest()) for name, data in members.items()}
        writer = BundleWriter(file, MODEL, listed)
        for name, data in members.items():
            writer.add(name, data)
        writer.close()
    with pytest.raises((InvalidBundle, Damaged)):
        import_model(elsewhere.objects, tmp_path / "harmed", LearnerValidator(elsewhere.objects))
    assert elsewhere.backbones.list() == []
