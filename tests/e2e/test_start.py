"""Tests of how processes start and end: closed streams, hang-ups, and what they refuse to run on."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import subprocess
import sys
import tempfile
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import torch

from testing.processes.forked import run
from testing.processes.processes import alive, children, eventually, plain_environment, reserved_port
from testing.servers.redis import RedisServer
from testing.servers.s3 import AWS
from testing.servers.unsound_s3 import unsound_s3
from vault.settings import VaultSettings

CLOSED = ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"]


@pytest.fixture(autouse=True)
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Short folder for temporary files, whose remains are checked; it holds sockets, whose paths are limited."""
    with tempfile.TemporaryDirectory(prefix="e-", dir="/tmp") as folder:
        monkeypatch.setenv("TMPDIR", folder)
        yield Path(folder)


@contextmanager
def running(shell: str, *words: str, module: str = "service", **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    """A program that a shell becomes by `exec` with redirections, such as `trap '' HUP; exec "$@" >&-`."""
    command = ["sh", "-c", shell, "sh", sys.executable, "-P", "-m", module, *words]
    with subprocess.Popen(command, env=plain_environment() | variables, start_new_session=True) as process:
        try:
            yield process
        finally:
            family = [process.pid, *children(process.pid)]
            process.kill()
            assert eventually(lambda: alive(family) == [], 60)


def ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", params={"allow_empty": "true"}).status_code == 200
    except httpx.TransportError:
        return False


def worker_of(process: subprocess.Popen[bytes]) -> bool:
    return any("-m worker" in line for line in children(process.pid).values())


@pytest.mark.parametrize("closed", [*(pytest.param(one, marks=pytest.mark.slow) for one in CLOSED[:-1]), CLOSED[-1]])
def test_serve_starts_with_closed_streams(tmp_path: Path, temporary: Path, closed: str) -> None:
    with reserved_port() as port:
        words = ("serve", "--data", str(tmp_path), "--port", str(port))
        with running(f'exec "$@" {closed}', *words) as process:
            assert eventually(lambda: ready(f"http://127.0.0.1:{port}"), 180)
            assert eventually(lambda: worker_of(process), 120)
            # No file or socket of ours has the number of a stream, which others write to.
            for number in {"<&-": "0", ">&-": "1", "2>&-": "2"}.get(closed, "012"):
                assert os.readlink(f"/proc/{process.pid}/fd/{number}") == "/dev/null"
            process.send_signal(signal.SIGTERM)
            assert process.wait(120) == 0
    assert not any(path.name.startswith("engram-") for path in temporary.iterdir())


@pytest.mark.parametrize("closed", CLOSED[-1:])
def test_service_starts_with_closed_streams(vault_settings: VaultSettings, closed: str) -> None:
    with reserved_port() as port:
        places = {"ENGRAM_STORE_URL": vault_settings.store_url, "ENGRAM_REDIS_URL": vault_settings.redis_url}
        with running(f'exec "$@" {closed}', "service", "--port", str(port), **places) as process:
            assert eventually(lambda: ready(f"http://127.0.0.1:{port}"), 180)
            process.send_signal(signal.SIGHUP)
            assert process.wait(120) == 0


@pytest.mark.parametrize(
    ("words", "module"),
    [(["worker"], "service"), pytest.param([], "worker", marks=pytest.mark.slow)],  # which the first one becomes
    ids=["engram", "module"],
)
def test_worker_starts_with_closed_streams(vault_settings: VaultSettings, words: list[str], module: str) -> None:
    with reserved_port() as port:
        variables = {
            "ENGRAM_STORE_URL": vault_settings.store_url,
            "ENGRAM_REDIS_URL": vault_settings.redis_url,
            "ENGRAM_WORKER_METRICS_PORT": str(port),
        }
        with running('exec "$@" <&- >&- 2>&-', *words, module=module, **variables) as process:
            assert eventually(lambda: waits_for_messages(vault_settings), 180)
            assert httpx.get(f"http://127.0.0.1:{port}/metrics").status_code == 200
            process.send_signal(signal.SIGHUP)
            assert process.wait(120) == 0


def waits_for_messages(settings: VaultSettings) -> bool:
    """Whether a worker waits for messages in this Redis."""
    import redis

    with redis.Redis.from_url(settings.redis_url, decode_responses=True) as client:
        return any(one["cmd"] == "brpop" for one in client.client_list())


@pytest.mark.slow
def test_a_hangup_ends_everything_in_order(tmp_path: Path, temporary: Path) -> None:
    words = ("serve", "--data", str(tmp_path), "--port")
    with reserved_port() as port, running('exec "$@"', *words, str(port)) as process:
        assert eventually(lambda: ready(f"http://127.0.0.1:{port}"), 180)
        assert eventually(lambda: worker_of(process), 120)
        family = [process.pid, *children(process.pid)]
        process.send_signal(signal.SIGHUP)
        assert process.wait(120) == 0
        assert alive(family) == []
    assert not any(path.name.startswith("engram-") for path in temporary.iterdir())


def test_a_terminal_that_is_closed_ends_everything_in_order(tmp_path: Path, temporary: Path) -> None:
    """Nothing can be written to it any more, then."""
    ours, theirs = pty.openpty()
    with reserved_port() as port:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "service", "serve", "--data", str(tmp_path), "--port", str(port)],
            env=plain_environment(),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(theirs)
        with process:
            try:
                assert eventually(lambda: ready(f"http://127.0.0.1:{port}"), 180)
                assert eventually(lambda: len(children(process.pid)) == 2, 120)
                family = [process.pid, *children(process.pid)]
                os.close(ours)
                assert process.wait(120) == 0
                assert alive(family) == []
            finally:
                process.kill()
    assert not any(path.name.startswith("engram-") for path in temporary.iterdir())


def test_a_hangup_while_starting_ends_everything_too(tmp_path: Path, temporary: Path) -> None:
    with running('exec "$@"', "serve", "--data", str(tmp_path), "--port", "0") as process:
        assert eventually(lambda: worker_of(process), 180)
        family = [process.pid, *children(process.pid)]
        process.send_signal(signal.SIGHUP)
        process.wait(120)
        assert eventually(lambda: alive(family) == [], 60)
    assert not any(path.name.startswith("engram-") for path in temporary.iterdir())


def test_with_nohup_it_goes_on(tmp_path: Path, temporary: Path) -> None:
    words = ("serve", "--data", str(tmp_path), "--port")
    with reserved_port() as port, running("trap '' HUP; exec \"$@\"", *words, str(port)) as process:
        assert eventually(lambda: ready(f"http://127.0.0.1:{port}"), 180)
        assert eventually(lambda: len(children(process.pid)) == 2, 120)
        family = [process.pid, *children(process.pid)]
        redis = next(temporary.glob("engram-*/redis.sock"))
        assert eventually(lambda: waits_for_messages(VaultSettings(redis_url=f"unix://{redis}")), 120)
        for pid in family:
            os.kill(pid, signal.SIGHUP)
        # Had one of them taken it, it would be gone by the time that two of these are answered.
        for _ in range(2):
            created = httpx.post(
                f"http://127.0.0.1:{port}/v1/models",
                json={"name": "after", "backbone": "mlp", "input": {"channels": 1, "height": 8, "width": 8}},
                timeout=60,
            )
            assert created.status_code in (200, 201), created.text
        assert alive(family) == family
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0


@pytest.mark.parametrize(
    ("program", "words"), [("service", ["service", "--port", "0"]), ("worker", [])], ids=["service", "worker"]
)
def test_an_unsound_store_is_refused_before_anything_is_published(
    s3_settings: VaultSettings, program: str, words: list[str]
) -> None:
    assert s3_settings.s3_endpoint is not None
    with unsound_s3(s3_settings.s3_endpoint, "ignores") as proxy:
        environment = plain_environment() | AWS
        environment |= {"ENGRAM_STORE_URL": s3_settings.store_url, "ENGRAM_REDIS_URL": s3_settings.redis_url}
        environment |= {"ENGRAM_S3_ENDPOINT": proxy.url}
        done = run(program, words, environment)
        assert (done.returncode, done.stdout) == (78, "")
        assert f"The store {s3_settings.store_url} does not keep racing writers apart" in done.stderr
        assert "unsound_store" in done.stderr
        assert "Traceback" not in done.stderr
        assert all("/probe/race/" in path for path in proxy.written)


@pytest.mark.parametrize(
    ("program", "words"), [("service", ["service", "--port", "0"]), ("worker", [])], ids=["service", "worker"]
)
def test_a_cluster_is_refused_in_a_sentence(tmp_path: Path, program: str, words: list[str]) -> None:
    server = RedisServer(**{"cluster-enabled": "yes"})
    try:
        environment = plain_environment()
        environment |= {"ENGRAM_STORE_URL": str(tmp_path), "ENGRAM_REDIS_URL": server.url}
        done = run(program, words, environment)
    finally:
        server.remove()
    assert done.returncode == 78
    assert "is a node of a cluster, which Celery cannot use" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
@pytest.mark.parametrize("word", ["service", "serve"])
def test_a_gpu_that_is_not_there_is_refused_in_a_sentence(word: str, tmp_path: Path, redis_url: str) -> None:
    environment = plain_environment() | {"ENGRAM_SERVE_DEVICE": "cuda"}
    environment |= {"ENGRAM_STORE_URL": str(tmp_path), "ENGRAM_REDIS_URL": redis_url}
    command = [sys.executable, "-P", "-m", "service", word, "--port", "0"]
    command += ["--data", str(tmp_path)] if word == "serve" else []
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert (done.returncode, done.stdout) == (78, "")
    assert "ENGRAM_SERVE_DEVICE is cuda" in done.stderr
    assert "(device_missing)" in done.stderr
    assert "Traceback" not in done.stderr
