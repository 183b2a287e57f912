"""Tests of the commands that ask a running service."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from engram_client import JobUpdate
from typer.testing import CliRunner, Result

from service.cli.main import ASKING, app
from service.cli.remote.connection import assigned
from service.cli.remote.progress import JobDisplay, curve
from service.settings import ServiceSettings
from testing.data.digits import QUICK, png
from testing.data.models import MODEL
from testing.processes.learning_service import working
from testing.processes.processes import eventually, plain_environment
from testing.servers.redis import RedisServer
from testing.servers.scripted import PreparedAnswer, scripted_server
from testing.servers.service import PATIENCE, Service, running
from tests.repository.layout import ROOT
from vault.settings import VaultSettings
from vault.vault import Vault

OPTIONS = [word for name, value in QUICK.items() for word in ("--option", f"{name}={value}")]


KEYS = {"the plant": "admin", "line 4": "predict"}
"""Scopes by name."""


def said(
    service: Service, *words: str, status: int | None = 0, given: bytes | None = None, key: str | None = None
) -> Result:
    """What a command says; with `status` None it may end with any."""
    done = CliRunner(env={"ENGRAM_URL": service.url, "ENGRAM_API_KEY": key}).invoke(app, list(words), input=given)
    assert status is None or done.exit_code == status, done.output
    return done


def document(service: Service, *words: str) -> Any:
    """What a command says to programs."""
    return json.loads(said(service, *words, "--json").stdout)


def table(text: str) -> list[list[str]]:
    """The cells of a table's lines, below its heads."""
    return [line.split() for line in text.splitlines()[1:]]


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    """A folder of two classes to learn from."""
    for digit in (4, 5):
        (tmp_path / "data" / f"digit-{digit}").mkdir(parents=True)
        for number in range(30):
            (tmp_path / "data" / f"digit-{digit}" / f"{number}.png").write_bytes(png(digit, number))
    return tmp_path / "data"


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """A service over `served/store` below the current folder, without a model, whose jobs are worked on."""
    monkeypatch.chdir(tmp_path)
    server = RedisServer()
    try:
        settings = VaultSettings(store_url=str(tmp_path / "served" / "store"), redis_url=server.url)
        about = ServiceSettings(**settings.model_dump(), drain_seconds=0, key_seconds=0.05)
        with Vault.connect(settings) as vault, running(about) as service, working(vault):
            yield service
    finally:
        server.remove()


def test_the_life_of_a_model(alone: Service, digits: Path) -> None:
    small = ["--set", "width=0.25", "--set", "commons.features=256", "--set", "commons.patch=3"]
    made = said(alone, "models", "create", "shell", "--backbone", "mlp", "--shape", "1x8x8", *small)
    assert made.stdout == "The model shell is there, at version 0: mlp, images of 1x8x8.\n"
    learned = said(alone, "learn", str(digits), "-m", "shell", "-n", "low", *OPTIONS, "--follow")
    assert "Learned low: version 1 of shell, held-out accuracy" in learned.stdout
    assert [row[0] for row in table(learned.stdout)[1:]] == ["digit-4", "digit-5"]
    assert {"sending", "training", "succeeded"} <= set(learned.stderr.split())

    image = next((digits / "digit-4").glob("*.png"))
    assert table(said(alone, "predict", str(image), "-m", "shell").stdout)[0][:2] == ["low", "digit-4"]
    assert "why digit-4 of low" in said(alone, "explain", str(image), "-m", "shell", "-o", "why.png").stdout
    assert Path("why.png").read_bytes().startswith(b"\x89PNG")

    job = document(alone, "learn", str(digits), "-m", "shell", "-n", "again", *OPTIONS)
    events = [json.loads(line) for line in said(alone, "jobs", "follow", job["id"], "--json").stdout.splitlines()]
    assert events[-1]["state"] == "succeeded"
    assert [row[1] for row in table(said(alone, "jobs", "list", "-m", "shell").stdout)] == ["succeeded"] * 2
    assert "version-2" in said(alone, "jobs", "show", job["id"]).stdout
    assert "job_over" in said(alone, "jobs", "cancel", job["id"], status=1).stderr

    looked = said(alone, "evaluate", str(digits), "-m", "shell", "-v", "1,2", "-t", "low", "--follow")
    newest = table(said(alone, "jobs", "list", "-m", "shell").stdout)[0][0]
    assert f"The job {newest} is " in looked.stderr
    whole, classes, compared = (part.splitlines() for part in looked.stdout.split("\n\n"))
    assert [row.split()[:2] for row in whole[1:]] == [["1", "60"], ["2", "60"]]
    assert [row.split()[:3] for row in classes[1:]] == [["low", "digit-4", "30"], ["low", "digit-5", "30"]]
    assert "of 60 images are answered otherwise" in compared[0]
    later = document(alone, "evaluate", str(digits), "-m", "shell", "-t", "again")
    said(alone, "jobs", "follow", later["id"])
    assert "evaluated" in said(alone, "jobs", "show", later["id"]).stdout
    assert document(alone, "jobs", "show", later["id"])["result"]["evaluation"]["versions"][0]["version"] == 2
    assert re.search(r"^accuracy +[▁-█]+ [01]", said(alone, "jobs", "show", job["id"]).stdout, re.MULTILINE)

    assert "digit-4, digit-5" in said(alone, "models", "show", "shell").stdout
    assert [row[1] for row in table(said(alone, "versions", "shell").stdout)] == ["learn", "learn", "create"]
    assert "version 3, which serves what version 1 was" in said(alone, "activate", "shell", "1").stdout
    row, signed = table(said(alone, "certificate", "shell", "1").stdout)
    assert signed == ["not", "signed"]
    assert row == [document(alone, "certificate", "shell")["tasks"][0]["logits_sha256"], "low"]
    assert "version 4" in said(alone, "models", "change", "shell", "--set", "background=#ffffff").stdout
    assert said(alone, "novelty", "shell").stdout.startswith("state    known\n")

    assert "Version 5" in said(alone, "rename", "shell", "low", "small", "--label", "digit-4=four").stdout
    assert table(said(alone, "predict", str(image), "-m", "shell", "-t", "small").stdout)[0][:2] == ["small", "four"]

    keys = [said(alone, "keys", "create", name, "--scope", scope, "--data", "served") for name, scope in KEYS.items()]
    key, weak = (one.stdout.split()[-1] for one in keys)
    assert eventually(lambda: "unauthorized" in said(alone, "models", "list", status=None).stderr, PATIENCE)
    assert "four" in said(alone, "predict", str(image), "-m", "shell", key=weak).stdout
    assert "forbidden" in said(alone, "activate", "shell", "1", key=weak, status=1).stderr
    said(alone, "keys", "revoke", keys[1].stderr.split()[1], "--data", "served")
    assert eventually(lambda: "revoked" in said(alone, "models", "list", key=weak, status=None).stderr, PATIENCE)
    assert "Delete" in said(alone, "models", "delete", "shell", key=key, status=1, given=b"n\n").stderr
    said(alone, "models", "delete", "shell", "--yes", key=key)
    assert "unknown_model" in said(alone, "models", "show", "shell", key=key, status=1).stderr

    done = [row[1] for row in table(said(alone, "audit", key=key).stdout)]
    earlier = ["decode", "activate", "learn", "learn", "create"]
    assert done == ["delete", "revoke_key", "create_key", "create_key", "rename", *earlier], "each once"


def test_what_waits_is_approved(learning: Service, digits: Path) -> None:
    small = ["--set", "width=0.25", "--set", "commons.features=256", "--set", "commons.patch=3"]
    shape = ["--backbone", "mlp", "--shape", "1x8x8"]
    said(learning, "models", "create", "careful", *shape, *small, "--set", "publish=manual")
    learned = said(learning, "learn", str(digits), "-m", "careful", "-n", "low", *OPTIONS, "--follow")
    assert "It waits to be activated: engram activate careful 1" in learned.stdout
    image = next(digits.rglob("*.png"))
    asked = said(learning, "predict", str(image), "-m", "careful", status=1)
    assert "waits until somebody activates it" in asked.stderr
    assert "candidates  1\n" in said(learning, "models", "show", "careful").stdout
    assert [row[2] for row in table(said(learning, "versions", "careful").stdout)] == ["candidate", "active"]
    assert "what answers stays as it is" in said(learning, "reject", "careful", "1").stdout
    assert "not_a_candidate" in said(learning, "reject", "careful", "1", status=1).stderr
    assert "version 3, which serves what version 1" in said(learning, "activate", "careful", "1").stdout
    renamed = said(learning, "rename", "careful", "low", "small", "--label", "digit-4=four").stdout
    assert "Version 4 of the model careful shows these names, which waits to be activated." in renamed
    assert "low -> small (digit-4 -> four)" in said(learning, "versions", "careful").stdout
    assert "label_exists" in said(learning, "rename", "careful", "low", "--label", "four=digit-5", status=1).stderr
    for words in (("low",), ("low", "a", "--label", "b"), ("low", "--label", "=b")):
        said(learning, "rename", "careful", *words, status=2)
    said(learning, "activate", "careful", "4")
    assert "small (learned as low)  four, digit-5" in said(learning, "models", "show", "careful").stdout
    rows = table(said(learning, "audit", "-m", "careful").stdout)
    assert [row[1] for row in rows] == ["activate", "rename", "activate", "reject", "learn", "create"]
    assert {row[5] for row in rows} == {"anonymous"}
    (entry,) = document(learning, "audit", "-m", "careful", "--action", "reject", "--since", "2026-01-01")
    assert (entry["version"], entry["target"]) == (2, 1)
    said(learning, "models", "delete", "careful", "--yes")


def test_questions(learning: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.png").write_bytes(png(2, 70))
    Path("b.txt").write_bytes(b"none")
    assert table(said(learning, "predict", "a.png", "-m", MODEL).stdout)[0][:2] == ["mid", "digit-2"]
    both = said(learning, "predict", "-", "b.txt", "-m", MODEL, "-k", "2", status=1, given=png(2, 70)).stdout
    assert [row[1] for row in table(both)] == ["digit-2", "not_an_image"]
    assert "digit-2 1.0000, digit-3 0.0000" in both
    (answer,) = document(learning, "predict", "a.png", "-m", MODEL, "--task", "mid")
    assert (answer["file"], answer["label"]) == ("a.png", "digit-2")
    assert "a-heatmap.png: why digit-2 of mid" in said(learning, "explain", "a.png", "-m", MODEL).stdout
    assert Path("a-heatmap.png").read_bytes().startswith(b"\x89PNG")
    said(learning, "explain", "-", "-m", MODEL, "-o", "c.png", given=png(2, 70))
    assert Path("c.png").read_bytes() == Path("a-heatmap.png").read_bytes()
    earlier = said(learning, "explain", "a.png", "-m", MODEL, "--version", "1", "-o", "d.png").stdout
    assert "of low, version 1" in earlier
    numbers = document(learning, "explain", "a.png", "a.png", "-m", MODEL, "--task", "mid")
    assert [one["file"] for one in numbers] == ["a.png", "a.png"]
    assert numbers[0]["label"] == "digit-2"
    assert "nowhere.png: No such file" in said(learning, "predict", "nowhere.png", "-m", MODEL, status=1).stderr
    assert MODEL in {entry["name"] for entry in document(learning, "models", "list")}


def test_a_table_of_images_is_evaluated_on_by_its_part(learning: Service, tmp_path: Path) -> None:
    rows = []
    for digit in (0, 1):
        (tmp_path / f"{digit}.png").write_bytes(png(digit, 70))
        rows.append(f"{digit}.png,digit-{digit},{'train' if digit else 'test'}")
    (tmp_path / "t.csv").write_text("\n".join(rows))
    asked = said(learning, "evaluate", str(tmp_path / "t.csv"), "-m", MODEL, "--follow", "--json")
    assert json.loads(asked.stdout)["result"]["evaluation"]["images"] == 1
    assert "note: 1 files of the part 'train' are not evaluated on, and were not sent" in asked.stderr
    (tmp_path / "0.png").unlink()
    refused = said(learning, "learn", str(tmp_path / "t.csv"), "-m", MODEL, "-n", "t", status=1)
    assert "1 of the 2 files that" in refused.stderr
    assert "(missing_files)" in refused.stderr


@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        (["models", "list", "--url", "http://127.0.0.1:1"], 3, "cannot be reached"),
        (["models", "list", "--url", "localhost"], 2, "no address"),
        (["models", "create", "x", "--shape", "64x64"], 2, "no shape"),
        (["models", "create", "x", "--set", "a"], 2, "NAME=VALUE"),
        (["models", "create", "x", "--backbone", "none", "--shape", "1x8x8"], 1, "invalid_request"),
        (["models", "create", "x", "--over", "y", "--set", 'commons=[{"kind": "learned"}]'], 2, "--over"),
        (["models", "change", "x"], 2, "--set"),
        (["learn", "/nowhere", "-m", "x", "-n", "t"], 2, "no folder or file"),
        (["activate", MODEL, "99"], 1, "unknown_version"),
        (["evaluate", "/nowhere", "-m", MODEL], 2, "no folder or file"),
        (["evaluate", ".", "-m", MODEL, "-v", "1,2,3"], 2, "two with a comma"),
        (["explain", "a", "b", "-o", "c", "-m", MODEL], 2, "--output"),
        (["explain", "a/0.png", "b/0.png", "-m", MODEL], 2, "0-heatmap.png"),
        (["predict", "-m", MODEL], 2, "Missing"),
    ],
)
def test_what_goes_wrong_has_a_status(learning: Service, words: list[str], status: int, text: str) -> None:
    done = said(learning, *words, status=status)
    assert text in " ".join(done.stderr.replace("│", " ").split())
    assert "Traceback" not in done.output


def test_a_failed_job_ends_the_command_with_its_code(learning: Service, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(20):
            (tmp_path / name / f"{number}.png").write_bytes(png(1, number))
    words = ["learn", str(tmp_path), "-m", MODEL, "-n", "alike", *OPTIONS, "--option", "min_accuracy=1.0", "-f"]
    assert "accuracy_too_low" in said(learning, *words, status=1).stderr


def test_waiting_for_a_limit_is_said() -> None:
    problem = json.dumps({"code": "rate_limited", "detail": "60 requests a minute.", "status": 429}).encode()
    with scripted_server() as server:
        limits = [PreparedAnswer(429, problem, {"Retry-After": after}) for after in ("1", "3600")]
        server.answers = [limits[0], PreparedAnswer(200, b'{"models": [], "next": null}'), limits[1]]
        command = CliRunner(env={"ENGRAM_URL": server.url})
        waited = command.invoke(app, ["models", "list"])
        refused = command.invoke(app, ["models", "list"])
    assert (waited.exit_code, waited.stderr) == (0, "waiting 1 s: 60 requests a minute. (rate_limited)\n")
    assert refused.exit_code == 1
    assert refused.stderr.endswith("It may be asked again in 3600 s.\n")


def test_the_page_names_every_command() -> None:
    page = (ROOT / "docs" / "client.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`engram .*?) \|", page, re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"engram (\w+)", row)}
    commands = [one for one in app.registered_commands if one.rich_help_panel == ASKING]
    groups = [one for one in app.registered_groups if one.rich_help_panel == ASKING]
    asking = {str(one.callback.__name__) for one in commands if one.callback is not None}
    assert named == asking | {str(one.typer_instance.info.name) for one in groups if one.typer_instance is not None}


def test_values_are_json_or_text() -> None:
    given = ["a=1", "b.c=text", "b.d=[1, 2]", "e=#ffffff", "f=", "g=x=y"]
    assert assigned(given) == {"a": 1, "b": {"c": "text", "d": [1, 2]}, "e": "#ffffff", "f": "", "g": "x=y"}


def test_a_terminal_shows_phase_share_and_curve(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    with JobDisplay() as display:
        display.sent(2**20, 2**21)
        for epoch, loss in enumerate((4.0, 2.0, 0.5)):
            update = {"phase": "training", "fraction": 0.5, "epoch": epoch, "loss": loss, "accuracy": 0.25}
            display.show(JobUpdate.read(update))
    shown = capsys.readouterr().err
    assert "training" in shown
    assert "50%" in shown
    assert "epoch 2, loss █▄▁ 0.5, accuracy 25.0%" in shown


def test_a_curve_without_a_slope_is_a_line() -> None:
    assert curve([1.0, 1.0]) == "▁▁"


def test_shells_complete_commands_and_models(learning: Service) -> None:
    def completed(words: str) -> list[str]:
        environment = {
            **plain_environment(),
            "ENGRAM_URL": learning.url,
            "_ENGRAM_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split(" ")) - 1),
        }
        program = "import sys; sys.argv = ['engram']; from service.cli.main import main; main()"
        command = [sys.executable, "-P", "-c", program]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.split()

    assert completed("engram mod") == ["models"]
    assert MODEL in completed("engram versions dig")
