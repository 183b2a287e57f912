"""Tests of the life cycle of API keys through the command line."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import httpx

from testing.data.digits import SMALL_MODEL
from testing.processes.forked import run
from testing.processes.processes import eventually, plain_environment
from tests.e2e.test_standalone import serving

MODEL = {"name": "digits", **SMALL_MODEL}


def engram(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return run("service", words, plain_environment() | environment)


def status(url: str, headers: dict[str, str] | None = None) -> int:
    """Status of a request for the models."""
    return httpx.get(f"{url}/v1/models", headers=headers, timeout=60).status_code


def test_keys_from_the_first_to_the_last(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with serving(data) as server:
        assert eventually(server.ready, 180)
        assert httpx.post(f"{server.url}/v1/models", json=MODEL, timeout=60).status_code == 201
        made = {
            scope: engram("keys", "create", f"the {scope}", "--scope", scope, "--data", str(data))
            for scope in ("predict", "learn", "admin")
        }
        tokens = {scope: {"Authorization": f"Bearer {done.stdout.strip()}"} for scope, done in made.items()}
        assert eventually(lambda: status(server.url) == 401, 60)
        asked = {
            who: httpx.post(f"{server.url}/v1/models", json=MODEL, headers=key, timeout=60)
            for who, key in tokens.items()
        }
        assert {who: answer.status_code for who, answer in asked.items()} == {
            "predict": 403,
            "learn": 403,
            "admin": 200,
        }
        assert httpx.get(f"{server.url}/v1/jobs", headers=tokens["learn"], timeout=60).status_code == 200

        listed = engram("keys", "list", ENGRAM_STORE_URL=str(data / "store")).stdout
        assert [line.split()[1:3] for line in listed.splitlines()[1:]] == [[scope, "valid"] for scope in tokens]
        assert all(done.stdout.strip().split("_", 2)[2] not in listed for done in made.values())
        admin = listed.splitlines()[3].split()[0]
        assert engram("keys", "revoke", admin, "--data", str(data)).returncode == 0
        assert eventually(lambda: status(server.url, tokens["admin"]) == 401, 60)
        assert "revoked" in engram("keys", "list", "--data", str(data)).stdout


def test_no_wider_address_without_a_key(tmp_path: Path) -> None:
    data, store = tmp_path / "data", tmp_path / "store"
    serve = engram("serve", "--data", str(data), "--host", "0.0.0.0", "--port", "0")
    service = engram("service", "--host", "0.0.0.0", "--port", "0", ENGRAM_STORE_URL=str(store))
    for refused in (serve, service):
        assert refused.returncode == 1
        assert refused.stdout == ""
        assert len(refused.stderr.strip().splitlines()) == 1
        assert "engram keys create" in refused.stderr
        assert "--without-keys" in refused.stderr
    assert os.listdir(data) == ["store"]  # nothing was started


def test_what_cannot_be_made_or_ended_is_said_in_a_sentence(tmp_path: Path) -> None:
    for missing in (("list",), ("revoke", "0" * 16)):
        nowhere = engram("keys", *missing, "--data", str(tmp_path / "mistyped"))
        assert (nowhere.returncode, nowhere.stdout, (tmp_path / "mistyped").exists()) == (2, "", False)
        assert "There is no store" in nowhere.stderr
    for words in (("create", " ", "--scope", "admin"), ("revoke", "0" * 16)):
        done = engram("keys", *words, "--data", str(tmp_path))
        assert (done.returncode, done.stdout) == (1, "")
        assert len(done.stderr.strip().splitlines()) == 1
        assert os.listdir(tmp_path) == (["store"] if words[0] == "revoke" else [])  # which is made for good keys only
        (tmp_path / "store").mkdir(exist_ok=True)
    for wrong in (("--scope", "root"), ("--scope", "admin", "--expires", "soon"), ("--scope", "learn", "--rate", "0")):
        assert engram("keys", "create", "x", *wrong, "--data", str(tmp_path)).returncode == 2
