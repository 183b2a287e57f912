"""Tests of `engram serve`: its processes, its folder, and its end."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from service.lifecycle.processes import spawn
from testing.data.digits import SMALL_MODEL, archive
from testing.processes.forked import fork, run
from testing.processes.processes import alive, children, eventually, plain_environment
from worker import liveness


class Serving:
    """One running `engram serve`."""

    def __init__(self, data: Path) -> None:
        self.data = data
        words = ["serve", "--data", str(data), "--port", "0"]
        self.process = fork("service", words, plain_environment(), stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        line = self.process.stdout.readline().decode()
        assert line.startswith("Engram is listening on http://127.0.0.1:")
        self.url = line.split()[-1]

    @property
    def family(self) -> dict[int, str]:
        return {self.process.pid: "serve"} | children(self.process.pid)

    def child(self, part: str) -> int | None:
        """Id of the process whose command line contains the text."""
        return next((pid for pid, line in children(self.process.pid).items() if part in line), None)

    def ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz", params={"allow_empty": "true"}).status_code == 200
        except httpx.TransportError:
            return False


@contextmanager
def serving(data: Path) -> Iterator[Serving]:
    server = Serving(data)
    try:
        yield server
    finally:
        server.process.kill()
        server.process.wait()
        assert server.process.stdout is not None
        server.process.stdout.close()


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """One for tests that leave it as it was."""
    with serving(tmp_path_factory.mktemp("standing") / "data") as server:
        yield server


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Short folder for temporary files, whose remains are checked; it holds sockets, whose paths are limited."""
    with tempfile.TemporaryDirectory(prefix="e-", dir="/tmp") as folder:
        monkeypatch.setenv("TMPDIR", folder)
        yield Path(folder)


def left(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith("engram-")]


def test_sigterm_ends_everything_in_order(tmp_path: Path, temporary: Path) -> None:
    with serving(tmp_path / "data") as server:
        assert eventually(server.ready, 180)
        assert eventually(lambda: server.child("-m worker"), 120)
        assert server.child("-server ")
        assert eventually(lambda: len(server.family) == 3, 60), server.family
        family = server.family
        assert len(left(temporary)) == 1
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(120) == 0
        assert alive(family) == []
        assert left(temporary) == []


def test_a_job_under_way_is_given_up_quickly_and_resumed_by_the_next_serve(tmp_path: Path) -> None:
    options = {"epochs": 150, "patience": 150, "prune": False}
    with serving(tmp_path / "data") as server:
        httpx.post(f"{server.url}/v1/models", json={"name": "digits", **SMALL_MODEL}, timeout=60).raise_for_status()
        accepted = httpx.post(
            f"{server.url}/v1/models/digits/tasks",
            data={"name": "zero-one", "options": json.dumps(options)},
            files={"data": ("digits.zip", archive((0, 1)), "application/zip")},
            timeout=60,
        )
        location = accepted.raise_for_status().headers["Location"]
        assert eventually(lambda: httpx.get(f"{server.url}{location}", timeout=60).json()["phase"] == "training", 120)
        family = server.family
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(120) == 0
        assert alive(family) == []
    with serving(tmp_path / "data") as server:
        assert eventually(lambda: httpx.get(f"{server.url}{location}", timeout=60).json()["state"] == "succeeded", 240)
        job = httpx.get(f"{server.url}{location}", timeout=60).json()
        assert job["attempts"] == 2


def test_ctrl_c_while_starting_ends_everything_too(tmp_path: Path, temporary: Path) -> None:
    command = [sys.executable, "-P", "-m", "service", "serve", "--data", str(tmp_path), "--port", "0"]
    with spawn(command, plain_environment(), stdout=subprocess.PIPE) as process:
        assert eventually(lambda: any("-m worker" in line for line in children(process.pid).values()), 180)
        family = children(process.pid)
        process.send_signal(signal.SIGINT)
        process.wait(120)
        assert eventually(lambda: alive(family) == [], 60)
        assert left(temporary) == []


@pytest.mark.parametrize(
    ("setting", "value", "why"),
    [("MAX_ATTEMPTS", "x", "ENGRAM_MAX_ATTEMPTS cannot be used: "), ("DEVICE", "cuda", "ENGRAM_DEVICE is cuda, ")],
)
def test_settings_that_the_worker_cannot_use_end_everything(
    tmp_path: Path, temporary: Path, setting: str, value: str, why: str
) -> None:
    words = ["serve", "--data", str(tmp_path), "--port", "0"]
    # The second variable is for machines with a GPU, on which it would be found.
    more = {f"ENGRAM_{setting}": value, "CUDA_VISIBLE_DEVICES": ""}
    done = run("service", words, plain_environment() | more)
    assert done.returncode == os.EX_CONFIG
    said = done.stderr.splitlines()
    assert any(why in line for line in said), said
    assert said[-1] == "The worker's settings cannot be used."
    assert "Traceback" not in done.stderr
    assert set(left(temporary)) <= {liveness.folder().name}  # which all workers share


def test_sigkill_takes_the_children_along_and_the_folder_is_free_again(tmp_path: Path, temporary: Path) -> None:
    with serving(tmp_path / "data") as server:
        assert eventually(lambda: server.child("-m worker"), 120)
        family = server.family
        server.process.kill()
        assert eventually(lambda: alive(family) == [], 60)
        killed = left(temporary)
        assert len(killed) == 1
    with serving(tmp_path / "data") as server:
        assert eventually(server.ready, 180)
        assert killed[0] not in left(temporary)


def test_a_second_serve_on_the_same_folder_is_refused_with_a_sentence(standing: Serving) -> None:
    second = run("service", ["serve", "--data", str(standing.data), "--port", "0"], plain_environment())
    assert second.returncode == 1
    assert second.stdout == ""
    assert len(second.stderr.strip().splitlines()) == 1
    assert f"process {standing.process.pid}" in second.stderr
    assert standing.url in second.stderr
    assert json.loads((standing.data / "serve.lock").read_text())["pid"] == standing.process.pid
    assert eventually(standing.ready, 180)


def test_a_port_that_is_taken_is_told_in_a_sentence(standing: Serving, tmp_path: Path) -> None:
    port = standing.url.rpartition(":")[2]
    second = run("service", ["serve", "--data", str(tmp_path / "other"), "--port", port], plain_environment())
    assert second.returncode == 1
    assert f"Cannot listen on 127.0.0.1:{port}" in second.stderr
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(("part", "model"), [("-m worker", "after-worker"), ("-server ", "after-redis")])
def test_what_dies_is_started_again(standing: Serving, part: str, model: str) -> None:
    assert eventually(standing.ready, 180)
    assert eventually(lambda: standing.child(part), 120)
    victim = standing.child(part)
    assert victim is not None
    os.kill(victim, signal.SIGKILL)
    assert eventually(lambda: standing.child(part) not in (None, victim), 120)
    assert eventually(standing.ready, 180)
    answer = httpx.post(
        f"{standing.url}/v1/models",
        json={"name": model, "backbone": "mlp", "input": {"channels": 1, "height": 8, "width": 8}},
        timeout=60,
    )
    assert answer.status_code == 201, answer.text
