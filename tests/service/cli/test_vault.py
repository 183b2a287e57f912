"""Tests of `engram vault`: problems that a check names, and models moved whole or not at all."""

from __future__ import annotations

import json
import os
import random
import shutil
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from engram.certificate import certify
from engram.config.definition import Definition
from service.cli.main import app
from service.cli.validator import LearnerValidator
from service.models.loaded import load
from service.settings import ServiceSettings
from testing.data.digits import png
from testing.data.models import MODEL, learn, submit
from testing.data.planted_store import objects_by_kind
from testing.servers.service import running, wait_until
from testing.servers.unsound_s3 import unsound_s3
from vault.errors import InvalidBundle, StoreUnavailable, UnknownModel, Unreadable, VaultError
from vault.maintenance.check import check as look
from vault.maintenance.export import export_model, import_model
from vault.maintenance.sweep import SweepAges
from vault.settings import VaultSettings
from vault.storage.documents import FORMAT, seal
from vault.storage.object_store import ObjectStore
from vault.storage.probe import StoreProbe
from vault.vault import Vault


def run(*words: object) -> Result:
    """One command, with the exit status it ends with."""
    return CliRunner().invoke(app, ["vault", *map(str, words)])


def check(store: Path, *words: object) -> tuple[int, dict[str, Any]]:
    """What `engram vault check` ends with and finds."""
    result = run("check", "--store", store, "--json", *words)
    found: dict[str, Any] = json.loads(result.stdout)
    return result.exit_code, found


@pytest.fixture
def store(learned_store: Path, tmp_path: Path) -> Path:
    """A store of the test's own with the two tasks."""
    folder = tmp_path / "engram" / "store"
    shutil.copytree(learned_store, folder)
    return folder


@pytest.fixture
def worked(store: Path, redis_url: str) -> Path:
    """The same with one job that is over and one that waits."""
    with Vault.connect(VaultSettings(store_url=str(store), redis_url=redis_url)) as vault:
        learn(vault, "high", (8, 9))
        submit(vault, "waiting", (4, 5))
    return store


def test_all_is_whole(worked: Path) -> None:
    status, found = check(worked, "--deep")
    assert (status, found["whole"], found["problems"]) == (0, True, [])
    assert (found["models"], found["versions"], found["certificates"], found["elsewhere"]) == (1, 4, 3, 0)
    assert (found["jobs"], found["uploads"], found["orphans"]) == (2, 1, 0)
    assert found["bytes"] == sum(path.stat().st_size for path in (worked / "blobs").iterdir())
    shown = run("check", "--data", worked.parent, "--model", MODEL)
    assert shown.exit_code == 0
    assert "problems      0" in shown.stdout


def test_one_flipped_bit_in_every_kind_of_object_is_found_and_named(worked: Path) -> None:
    generator = random.Random(3)
    for name, path in objects_by_kind(worked).items():
        whole = path.read_bytes()
        for place in (generator.randrange(len(whole)), len(whole) // 2):
            harmed = bytearray(whole)
            harmed[place] ^= 1 << generator.randrange(8)
            if b'"seal"' in whole and b'"seal"' not in harmed:
                continue  # it is taken for a record that is older than seals
            path.write_bytes(harmed)
            status, found = check(worked)
            named = [problem["object"] for problem in found["problems"]]
            assert (status, named) == (1, [str(path.relative_to(worked))]), (name, place, found["problems"])
            assert found["problems"][0]["code"] in ("damaged", "unsupported_format")
        path.write_bytes(whole)
    assert check(worked)[0] == 0


def test_every_kind_of_object_that_is_missing_is_named(worked: Path) -> None:
    for name, path in objects_by_kind(worked).items():
        if name in ("attempt", "decision", "request", "model"):
            continue  # there is no trace of these elsewhere; without its record there is no model
        whole = path.read_bytes()
        path.unlink()
        status, found = check(worked)
        path.write_bytes(whole)
        if name == "result":
            # Then the job is an open one that nobody can find.
            assert "open/" in found["problems"][0]["object"]
            continue
        assert status == 1, name
        assert str(path.relative_to(worked)) in [problem["object"] for problem in found["problems"]], found["problems"]
        assert {problem["code"] for problem in found["problems"]} <= {"not_found", "version_missing"}
    assert check(worked)[0] == 0


def test_gaps_strange_parents_and_answers_that_changed_are_found(store: Path, redis_url: str) -> None:
    _, second, _ = sorted(store.glob(f"models/{MODEL}/log/*/*.json"))
    whole = second.read_bytes()
    second.unlink()
    _, found = check(store)
    assert [problem["code"] for problem in found["problems"]] == ["gap"]
    refused = run("export", MODEL, store.parent / "file", "--store", store)
    assert (refused.exit_code, str(second.relative_to(store)) in refused.stderr) == (1, True)
    commit = json.loads(whole)
    for field in ("seal", "writer"):
        del commit[field]
    second.write_bytes(seal({**commit, "parent": 5}))
    _, found = check(store)
    assert "its parent is 5, not 0" in found["problems"][0]["detail"]
    second.write_bytes(whole)

    # A certificate of answers that were never given; everything is whole by its hash.
    with Vault.connect(VaultSettings(store_url=str(store), redis_url=redis_url)) as vault:
        head = vault.log.head(MODEL)
        assert head is not None
        assert head.certificate is not None
        certificate = json.loads(vault.objects.get_blob(head.certificate))
        certificate["tasks"][0]["logits_sha256"] = "0" * 64
        forged = vault.objects.put_blob(json.dumps(certificate).encode())
        vault.log.append(MODEL, head.following("activate", certificate=forged))
    assert check(store)[0] == 0
    status, found = check(store, "--deep")
    assert (status, [problem["code"] for problem in found["problems"]]) == (1, ["retention_violated"])
    assert "low no longer answers as certified for version 3" in found["problems"][0]["detail"]


def test_what_nothing_names_is_counted(store: Path, redis_url: str) -> None:
    with Vault.connect(VaultSettings(store_url=str(store), redis_url=redis_url)) as vault:
        vault.objects.put_blob(b"left over")
    status, found = check(store)
    assert (status, found["orphans"], found["orphan_bytes"]) == (0, 1, len(b"left over"))


def test_what_a_later_release_wrote_is_told_from_damage(store: Path) -> None:
    newest = max(store.glob(f"models/{MODEL}/log/*/*.json"))
    document = json.loads(newest.read_text())
    document["seal"]["format"] = FORMAT + 1
    newest.write_text(json.dumps(document))
    status, found = check(store)
    assert (status, found["problems"][0]["code"]) == (1, "unsupported_format")


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (("check", "--store", "nowhere"), 2),
        (("check", "--store", "{store}", "--model", "none"), 1),
        (("check", "--store", "{store}", "--data", "somewhere"), 2),
        (("export", "none", "{tmp}/file", "--store", "{store}"), 1),
        (("import", "{tmp}/nothing", "--store", "{store}"), 2),
        (("import", "{store}/models/digits/model.json", "--store", "{store}"), 1),
    ],
)
def test_what_cannot_be_done_is_told_in_a_sentence(
    store: Path, tmp_path: Path, words: tuple[str, ...], status: int
) -> None:
    result = run(*(word.format(store=store, tmp=tmp_path) for word in words))
    assert result.exit_code == status
    assert "Traceback" not in result.output
    assert result.stderr


@pytest.mark.parametrize("broken", ["cut short", "no bundle", "another name"])
def test_an_import_that_is_refused_leaves_nothing_behind(store: Path, tmp_path: Path, broken: str) -> None:
    bundle = tmp_path / "digits.engram"
    assert run("export", MODEL, bundle, "--store", store).exit_code == 0
    whole = bundle.read_bytes()
    bundle.write_bytes({"cut short": whole[: len(whole) // 2], "no bundle": b"{}", "another name": whole}[broken])
    name = "No Name" if broken == "another name" else "twin"
    for there in (tmp_path / "new", tmp_path / "empty"):
        before = set(tmp_path.rglob("*"))
        result = run("import", bundle, "--store", there / "below" / "store", "--name", name)
        assert (result.exit_code, len(result.stderr.strip().splitlines())) == (1, 1)
        assert result.stderr.strip().endswith(("(invalid_bundle)", "(damaged)", "(invalid_name)"))
        assert set(tmp_path.rglob("*")) == before
        (tmp_path / "empty" / "below" / "store").mkdir(parents=True, exist_ok=True)  # which stays
    before = set(store.rglob("*"))
    assert run("import", bundle, "--store", store, "--name", name).exit_code == 1
    assert set(store.rglob("*")) == before


def test_an_export_that_cannot_be_written_names_what_was_asked_for(store: Path, tmp_path: Path) -> None:
    before = set(tmp_path.rglob("*"))
    nowhere = tmp_path / "nowhere"
    result = run("export", MODEL, nowhere / "digits.engram", "--store", store)
    assert (result.exit_code, result.stderr) == (1, f"{nowhere}: No such file or directory.\n")
    (folder := tmp_path / "folder").mkdir()
    result = run("export", MODEL, folder, "--store", store, "--force")
    assert (result.exit_code, result.stderr) == (1, f"{folder}: Is a directory.\n")
    assert set(tmp_path.rglob("*")) == before | {folder}


def test_a_model_comes_over_whole(store: Path, tmp_path: Path, settings: ServiceSettings) -> None:
    bundle, target = tmp_path / "digits.engram", tmp_path / "elsewhere"
    done = json.loads(run("export", MODEL, bundle, "--store", store, "--json").stdout)
    assert done == {"model": MODEL, "versions": 3, "blobs": done["blobs"], "bytes": done["bytes"], "backbones": []}
    assert run("export", MODEL, bundle, "--store", store).exit_code == 2
    assert run("import", bundle, "--data", target).exit_code == 0
    assert run("import", bundle, "--data", target, "--name", "twin").exit_code == 0
    assert run("import", bundle, "--data", target).exit_code == 1
    assert check(target / "store", "--deep")[1]["certificates"] == 4

    # Equal models give equal files, whatever store they lie in.
    again = tmp_path / "again.engram"
    assert run("export", MODEL, again, "--data", target).exit_code == 0
    assert again.read_bytes() == bundle.read_bytes()

    answers = []
    for folder, name in ((store, MODEL), (target / "store", MODEL), (target / "store", "twin")):
        with Vault.connect(VaultSettings(store_url=str(folder), redis_url=settings.redis_url)) as vault:
            commits = vault.log.list(name)
            memory = load(vault, vault.models.get(name), commits[-1]).memory
            parts = [(commit.engrams, commit.recogniser, commit.kept, commit.certificate) for commit in commits]
            answers.append((parts, certify(memory).tasks))
            lineage = vault.models.get(name).lineage
            assert {commit.lineage for commit in commits} == {lineage}
    assert answers[0] == answers[1] == answers[2]


def test_a_running_service_serves_what_is_imported_and_learns_on_it(
    store: Path, tmp_path: Path, settings: ServiceSettings
) -> None:
    bundle = tmp_path / "digits.engram"
    assert run("export", MODEL, bundle, "--store", store).exit_code == 0
    with running(settings) as service:
        assert run("import", bundle, "--store", settings.store_url, "--name", "twin").exit_code == 0
        headers = {"Content-Type": "image/png"}
        answer = service.client.post("/v1/models/twin/predict", content=png(0, 100), headers=headers)
        assert (answer.status_code, answer.json()["version"]) == (200, 2)
        learn(service.vault, "high", (8, 9), "twin")
        wait_until(lambda: service.client.get("/v1/models/twin").json()["version"] == 3)
        assert service.client.get("/v1/models/twin/versions/1/certificate").status_code == 200


def test_an_import_that_breaks_off_leaves_no_model_and_can_be_done_again(
    store: Path, tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = tmp_path / "digits.engram"
    with Vault.connect(VaultSettings(store_url=str(store), redis_url=redis_url)) as vault:
        export_model(vault.objects, MODEL, bundle)
    with Vault.connect(VaultSettings(store_url=str(tmp_path / "new"), redis_url=redis_url)) as vault:
        put_new = vault.objects.put_new
        written = 0
        limit = 0

        def put_some(path: str, data: bytes) -> None:
            nonlocal written
            if written == limit:
                raise StoreUnavailable("No space left on device")
            written += 1
            put_new(path, data)

        monkeypatch.setattr(vault.objects, "put_new", put_some)
        validator = LearnerValidator(vault.objects)
        while True:
            try:
                import_model(vault.objects, bundle, validator)
                break
            except StoreUnavailable:
                with pytest.raises(UnknownModel):
                    vault.log.head(MODEL)
                limit, written = limit + 1, 0
        assert limit > 10
        monkeypatch.undo()
        assert [commit.version for commit in vault.log.list(MODEL)] == [0, 1, 2]
        vault.sweep(SweepAges.all(timedelta(0)))
        assert len(vault.objects.list_folders(f"models/{MODEL}/log")) >= 1
        assert check(tmp_path / "new", "--deep")[1]["orphans"] == 0
        assert check(tmp_path / "new", "--deep")[1]["certificates"] == 2


def test_a_sweep_spares_the_log_of_a_model_that_is_being_imported(vault: Vault) -> None:
    vault.objects.create_json("models/coming/log/0123/00000000.json", {})
    found = look(vault.objects, LearnerValidator(vault.objects))
    assert [(one.object, one.code) for one in found.problems] == [("models/coming/model.json", "not_found")]
    vault.sweep()
    assert vault.objects.list("models/coming")
    vault.sweep(SweepAges.all(timedelta(0)))
    assert not vault.objects.list("models/coming")


def test_no_damage_to_the_file_gets_into_a_store(store: Path, tmp_path: Path) -> None:
    """Either the import is refused, or the bit was one that says nothing, such as the time stamp of a tar's header."""
    bundle = tmp_path / "digits.engram"
    objects = ObjectStore.connect(VaultSettings(store_url=str(store)))
    export_model(objects, MODEL, bundle)
    whole = bundle.read_bytes()
    generator = random.Random(11)
    small = [generator.randrange(3000) for _ in range(40)]
    for number, place in enumerate(small + [generator.randrange(len(whole)) for _ in range(20)]):
        harmed = bytearray(whole)
        harmed[place] ^= 1 << generator.randrange(8)
        _refused_or_equal(bytes(harmed), tmp_path / f"flip-{number}", whole)
    for number, length in enumerate((0, 1, 511, 512, 5000, len(whole) // 2, len(whole) - 20_000)):
        _refused_or_equal(whole[:length], tmp_path / f"cut-{number}", whole)


def _refused_or_equal(data: bytes, folder: Path, whole: bytes) -> None:
    folder.mkdir()
    file = folder / "file"
    file.write_bytes(data)
    objects = ObjectStore.connect(VaultSettings(store_url=str(folder / "store")))
    try:
        import_model(objects, file, LearnerValidator(objects))
    except (InvalidBundle, Unreadable):
        assert not [path for path in (folder / "store").rglob("*") if path.is_file()]
    else:
        export_model(objects, MODEL, folder / "again")
        assert (folder / "again").read_bytes() == whole


def test_definitions_that_are_none_are_refused(store: Path) -> None:
    validator = LearnerValidator(ObjectStore.connect(VaultSettings(store_url=str(store))))
    with pytest.raises(VaultError, match=r"model\.json"):
        validator.definition("model.json", {"backbone": "none of ours"})
    validator.definition("model.json", Definition.model_validate({"backbone": "mlp"} | _SHAPE).model_dump(mode="json"))


_SHAPE: dict[str, Any] = {"input": {"channels": 1, "height": 8, "width": 8}}


def test_a_sweep_tells_what_it_removes(worked: Path) -> None:
    blob = ObjectStore.connect(VaultSettings(store_url=str(worked))).put_blob(b"nobody's")
    two_days_ago = time.time() - 2 * 86400
    os.utime(worked / "blobs" / blob, (two_days_ago, two_days_ago))
    counts = "jobs 0, checkpoints 0, uploads 0, answers 0, blobs 1"
    assert f"Would remove: {counts}." in run("sweep", "--store", worked, "--dry-run").stdout
    assert json.loads(run("sweep", "--store", worked, "--json").stdout)["blobs"] == [f"blobs/{blob}"]
    assert "blobs 0" in run("sweep", "--store", worked).stdout
    assert check(worked)[0] == 0


@pytest.fixture
def ignoring(s3_settings: VaultSettings, monkeypatch: pytest.MonkeyPatch) -> Iterator[VaultSettings]:
    """Settings of a store that ignores `If-None-Match`, in the environment too."""
    assert s3_settings.s3_endpoint is not None
    with unsound_s3(s3_settings.s3_endpoint, "ignores") as proxy:
        monkeypatch.setenv("ENGRAM_S3_ENDPOINT", proxy.url)
        monkeypatch.setenv("ENGRAM_STORE_URL", s3_settings.store_url)
        yield s3_settings


def test_a_check_always_probes_the_store_anew(ignoring: VaultSettings) -> None:
    probed = StoreProbe(ObjectStore.connect(ignoring), ignoring.model_copy(update={"s3_endpoint": "elsewhere"}))
    probed.require()  # past the proxy
    result = run("check", "--json")
    found = json.loads(result.stdout)
    assert (result.exit_code, found["whole"]) == (1, False)
    (problem,) = found["problems"]
    assert (problem["object"], problem["code"]) == ("probe", "unsound_store")
    assert "8 of 8 racing writers were told" in problem["detail"]


def test_nothing_is_made_in_an_unsound_store(ignoring: VaultSettings) -> None:
    made = CliRunner().invoke(app, ["keys", "create", "line", "--scope", "predict"])
    assert made.exit_code == 78
    assert made.stdout == ""
    assert made.stderr.endswith("(unsound_store)\n")
    assert ObjectStore.connect(ignoring).list_top() == []
