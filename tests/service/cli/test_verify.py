"""Tests of `engram verify` and `engram certificate-key`, with what is planted against certificates."""

from __future__ import annotations

import json
import shutil
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from typer.testing import CliRunner, Result

from service.cli.main import app
from service.models import versions
from service.settings import ServiceSettings
from testing.data.models import MODEL, create, learn
from vault.commit_log import Commit
from vault.maintenance.export import export_model
from vault.settings import VaultSettings
from vault.storage.object_store import ObjectStore
from vault.vault import Vault

HOLDING = dict.fromkeys(("chain", "objects", "subject", "signature", "decoder", "answers"), "holds")


def run(*words: object) -> Result:
    """One command, with the exit status it ends with."""
    return CliRunner().invoke(app, [*map(str, words)])


def verified(folder: Path, *words: object) -> tuple[int, dict[str, str]]:
    """What `engram verify` ends with, and finds of each part."""
    done = run("verify", MODEL, "--store", folder / "store", "--json", *words)
    found = json.loads(done.stdout)
    # A part that was refuted once stays so.
    outcomes: dict[str, str] = {}
    for one in found["parts"]:
        if outcomes.get(one["part"]) != "refuted":
            outcomes[one["part"]] = one["outcome"]
    return done.exit_code, outcomes


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Path:
    """A folder with a key, its public half, and a store of two signed versions: a task, and another decoder."""
    folder = tmp_path_factory.mktemp("signed")
    done = run("certificate-key", "create", folder / "key.pem")
    assert done.exit_code == 0, done.output
    (folder / "public.pem").write_text(done.stdout)
    settings = ServiceSettings(
        store_url=str(folder / "store"),
        redis_url=redis_url,
        certificate_key=SecretStr(str(folder / "key.pem")),
    )
    with Vault.connect(settings) as vault:
        create(vault)
        learn(vault, "low", (0, 1))
        versions.change(vault, MODEL, None, {"background": "#ff0000"})
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy of the test's own."""
    return shutil.copytree(made, tmp_path / "own")


@pytest.fixture
def vault(folder: Path, redis_url: str) -> Vault:
    """The copy's store, by a process without a key."""
    return Vault.connect(VaultSettings(store_url=str(folder / "store"), redis_url=redis_url))


def head(vault: Vault) -> Commit:
    found = vault.log.head(MODEL)
    assert found is not None
    return found


def replant(vault: Vault, **changes: Any) -> None:
    """Append a version whose certificate says something else, as whoever may write to the store could."""
    before = head(vault)
    document = json.loads(vault.objects.get_blob(str(before.certificate)))
    document["subject"]["after"] = before.certificate
    sha = vault.objects.put_blob(json.dumps(document | changes, sort_keys=True).encode())
    vault.log.append(MODEL, before.following("budget", certificate=sha))


def test_a_signed_certificate_holds_in_the_store_and_in_a_bundle(made: Path, tmp_path: Path) -> None:
    key = ("--public-key", made / "public.pem")
    assert verified(made, *key) == (0, HOLDING)
    assert verified(made, "--version", 1, *key) == (0, HOLDING)
    export_model(ObjectStore.connect(VaultSettings(store_url=str(made / "store"))), MODEL, tmp_path / "bundle")
    moved = run("verify", "--bundle", tmp_path / "bundle", *key)
    assert moved.exit_code == 0, moved.output
    assert moved.stdout.splitlines()[-1] == f"{MODEL}, version 2: The certificate holds."


def test_a_version_without_a_task_has_nothing_to_verify_but_its_objects(made: Path) -> None:
    assert verified(made, "--version", 0) == (0, {"chain": "holds", "objects": "holds", "subject": "absent"})


def test_a_certificate_of_another_key_or_of_none_is_refused_where_a_key_is_given(
    made: Path, learned_store: Path, tmp_path: Path
) -> None:
    (other := tmp_path / "other.pem").write_text(run("certificate-key", "create", tmp_path / "key.pem").stdout)
    assert verified(made, "--public-key", other) == (1, HOLDING | {"signature": "refuted"})
    assert verified(learned_store.parent, "--public-key", other) == (1, HOLDING | {"signature": "refuted"})
    assert verified(learned_store.parent) == (0, HOLDING | {"signature": "absent"})


def test_what_is_signed_may_not_be_exchanged(folder: Path, vault: Vault) -> None:
    first, signed = vault.log.read(MODEL, 0), head(vault)
    assert first.recogniser != signed.recogniser
    vault.log.append(MODEL, signed.following("budget", recogniser=first.recogniser))
    assert verified(folder) == (1, HOLDING | {"subject": "refuted", "answers": "refuted"})
    # Nor may a signature be put on another certificate.
    replant(vault, routing={})
    vault.log.append(MODEL, replace(head(vault).following("budget"), signature=signed.signature))
    assert verified(folder)[1]["signature"] == "refuted"


def test_a_signature_that_an_earlier_release_left_out_is_found(folder: Path, vault: Vault) -> None:
    vault.log.append(MODEL, replace(head(vault).following("budget"), signature=None))
    assert verified(folder, "--public-key", folder / "public.pem") == (0, HOLDING)


def test_other_answers_than_certified_are_found(folder: Path, vault: Vault) -> None:
    (row,) = json.loads(vault.objects.get_blob(str(head(vault).certificate)))["tasks"]
    replant(vault, tasks=[row | {"logits_sha256": "0" * 64}])
    assert verified(folder) == (1, HOLDING | {"signature": "absent", "answers": "refuted"})


def test_answers_of_another_environment_are_left_open(folder: Path, vault: Vault) -> None:
    document = json.loads(vault.objects.get_blob(str(head(vault).certificate)))
    (row,) = document["tasks"]
    replant(
        vault,
        environment=document["environment"] | {"torch": "1.0"},
        tasks=[row | {"logits_sha256": "0" * 64, "shapes": {}}],
    )
    assert verified(folder) == (3, HOLDING | {"signature": "absent", "answers": "open"})
    assert "torch" in run("verify", MODEL, "--store", folder / "store").stdout


def test_damage_and_gaps_are_found(folder: Path, vault: Vault) -> None:
    engram = folder / "store" / "blobs" / head(vault).engrams[-1]
    data = bytearray(engram.read_bytes())
    data[-1] ^= 1
    engram.write_bytes(data)
    status, found = verified(folder)
    assert (status, found["objects"], found["signature"]) == (1, "refuted", "holds")
    assert "answers" not in found
    (record,) = folder.glob("store/models/*/log/*/00000001.json")
    record.unlink()
    assert verified(folder)[1]["chain"] == "refuted"


def test_a_certificate_that_follows_another_one_is_found(folder: Path, vault: Vault) -> None:
    subject = json.loads(vault.objects.get_blob(str(head(vault).certificate)))["subject"]
    replant(vault, subject=subject | {"after": "0" * 64})
    assert verified(folder) == (1, HOLDING | {"chain": "refuted", "signature": "absent"})


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "Name either"),
        ((MODEL, "--bundle", "file"), "Name either"),
        (("--bundle", "nowhere"), "no file"),
        (("--bundle", "nowhere", "--data", "."), "not both"),
        ((MODEL, "--store", "nowhere"), "no store"),
        ((MODEL, "--public-key", "nowhere"), "cannot be used"),
    ],
)
def test_a_wrong_use_is_told(words: tuple[str, ...], message: str) -> None:
    done = run("verify", *words)
    assert done.exit_code == 2
    assert message in " ".join(done.stderr.split())


def test_what_is_not_there_is_told(made: Path) -> None:
    for words in ((MODEL, "--version", 3), ("other",)):
        done = run("verify", *words, "--store", made / "store")
        assert (done.exit_code, done.stdout) == (2, "")
        assert "(unknown_" in done.stderr


def test_a_key_is_made_once_and_shown_again(made: Path) -> None:
    assert stat.S_IMODE((made / "key.pem").stat().st_mode) == 0o600
    again = run("certificate-key", "create", made / "key.pem")
    assert (again.exit_code, again.stdout) == (2, "")
    for name in ("key.pem", "public.pem"):
        shown = run("certificate-key", "show", made / name)
        assert (shown.exit_code, shown.stdout) == (0, (made / "public.pem").read_text())
    assert run("certificate-key", "show", made / "store").exit_code == 2
    assert run("certificate-key", "create", made / "store" / "no" / "key").exit_code == 1


def test_answers_of_another_environment_are_compared_where_they_are_kept(folder: Path, vault: Vault) -> None:
    document = json.loads(vault.objects.get_blob(str(head(vault).certificate)))
    replant(vault, environment=document["environment"] | {"torch": "1.0"})
    assert verified(folder) == (0, HOLDING | {"signature": "absent"})
    export_model(vault.objects, MODEL, folder / "bundle")
    moved = run("verify", "--bundle", folder / "bundle")
    assert (moved.exit_code, "but for rounding" in moved.stdout) == (0, True)
