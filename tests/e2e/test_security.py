"""Security tests against real processes; see docs/security.md."""

from __future__ import annotations

import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from service.lifecycle.processes import stop
from testing.data.digits import SMALL_MODEL, png
from testing.data.tokens import bearer, token
from testing.processes.forked import fork
from testing.processes.processes import eventually, plain_environment
from testing.processes.stack import Stack
from testing.servers.redis import RedisServer
from vault.settings import VaultSettings
from vault.vault import Vault

ROOT = Path(__file__).parents[2]
UPLOAD = 256 * 2**20
"""Bytes of the upload; 1 GiB gives the same result and takes longer."""
MEMORY_MARGIN = 96 * 2**20
"""Bytes by which memory may grow meanwhile."""


def test_every_line_of_the_table_names_tests_that_exist() -> None:
    table = (ROOT / "docs" / "security.md").read_text().partition("## Who can do what")[2]
    lines = [line for line in table.splitlines() if line.startswith("| ")][1:]
    assert len(lines) > 20
    for line in lines:
        named = re.findall(r"`(tests/[\w/]+\.py)::([\w:]+)`", line)
        assert named, line
        for path, name in named:
            text = (ROOT / path).read_text()
            for part in name.split("::"):
                assert re.search(rf"^\s*(def|class|async def) {part}\b", text, re.MULTILINE), f"{path}::{name}"


def memory(pid: int) -> int:
    """Resident bytes of a process."""
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def pid_of(address: str) -> int:
    """Process id of the service that listens at the address."""
    port = int(address.rpartition(":")[2])
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                words = (folder / "cmdline").read_bytes().decode(errors="replace")
                sockets = {str(link.readlink()) for link in (folder / "fd").iterdir()} if "service" in words else set()
            except OSError:
                continue
            if any(f"socket:[{inode}]" in sockets for inode in listening(port)):
                return int(folder.name)
    raise AssertionError(f"nobody listens on {port}")


def listening(port: int) -> set[str]:
    """Inodes of the sockets that listen on a port."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {fields[9] for fields in lines if fields[3] == "0A" and int(fields[1].partition(":")[2], 16) == port}


def test_an_upload_takes_no_memory(stack: Stack) -> None:
    stack.create("memory")
    process = pid_of(stack.replicas[0])
    before, peak = memory(process), 0
    head = b'--x\r\nContent-Disposition: form-data; name="name"\r\n\r\nx\r\n--x\r\n'
    head += b'Content-Disposition: form-data; name="data"; filename="x"\r\n\r\n'

    def nonsense() -> Iterator[bytes]:
        nonlocal peak
        yield head
        block = bytes(range(256)) * 4096
        for _ in range(UPLOAD // len(block)):
            yield block
            peak = max(peak, memory(process))
        yield b"\r\n--x--\r\n"

    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    response = httpx.post(
        f"{stack.replicas[0]}/v1/models/memory/tasks", content=nonsense(), headers=headers, timeout=120
    )
    assert (response.status_code, response.json()["code"]) == (422, "not_an_archive")
    assert peak - before < MEMORY_MARGIN


SMUGGLED = b"GET /v1/jobs HTTP/1.1\r\nHost: x\r\n\r\n"
HIDING = {
    "two lengths": b"Content-Length: 0\r\nContent-Length: %d\r\n" % len(SMUGGLED),
    "a length and chunks": b"Content-Length: %d\r\nTransfer-Encoding: chunked\r\n" % (5 + len(SMUGGLED)),
    "chunks, written oddly": b"Transfer-Encoding: xchunked\r\nContent-Length: 5\r\n",
    "chunks and more": b"Transfer-Encoding: chunked, identity\r\n",
    "a length with a sign": b"Content-Length: +0\r\n",
    "a space before the colon": b"Content-Length : 0\r\n",
    "a folded line": b"X-Header: a\r\n Content-Length: 0\r\n",
}


@pytest.mark.parametrize("how", HIDING)
def test_no_request_hides_in_another(stack: Stack, how: str) -> None:
    port = int(stack.replicas[0].rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(b"POST /v1/models HTTP/1.1\r\nHost: x\r\n" + HIDING[how] + b"\r\n0\r\n\r\n" + SMUGGLED)
        connection.settimeout(3)
        answer = b""
        try:
            while data := connection.recv(65536):
                answer += data
        except (TimeoutError, ConnectionResetError):  # both answer nothing more
            pass
    assert b'"jobs":' not in answer, "the second request was answered"
    assert answer.count(b"HTTP/1.1 ") <= 1


def test_secrets_are_in_no_log(tmp_path: Path) -> None:
    redis = RedisServer()
    store = tmp_path / "store"
    with Vault.connect(VaultSettings(store_url=str(store), redis_url=redis.url)) as vault:
        mine = token(vault, "admin")
        gone = token(vault, "learn")
        vault.keys.revoke(gone.split("_")[1])
    redis.remove()
    secrets = {"redis": "hunter2-of-redis", "s3": "hunter2-of-s3-which-is-long", "mine": mine, "gone": gone}
    environment = plain_environment() | {
        "ENGRAM_STORE_URL": str(store),
        "ENGRAM_REDIS_URL": f"redis://engram:{secrets['redis']}@127.0.0.1:1/0",
        "ENGRAM_KEYS": "required",
        "ENGRAM_LOG_LEVEL": "DEBUG",
        "ENGRAM_DRAIN_SECONDS": "0",
        "AWS_ACCESS_KEY_ID": "someone",
        "AWS_SECRET_ACCESS_KEY": secrets["s3"],
        "OMP_NUM_THREADS": "1",
    }
    logs = [tmp_path / name for name in ("worker", "lost", "service")]
    with ExitStack() as files:
        complaints, complained, out = (files.enter_context(log.open("wb")).fileno() for log in logs)
        away = environment | {"ENGRAM_STORE_URL": "s3://bucket", "ENGRAM_S3_ENDPOINT": "http://127.0.0.1:1"}
        away["ENGRAM_STORE_TIMEOUT_SECONDS"] = "2"  # after which it complains
        worker = fork("worker", [], environment, stdout=complaints, stderr=complaints)
        words = ["service", "--port", "0"]
        lost = fork("service", words, away, stdout=complained, stderr=complained)
        service = fork("service", words, environment, stdout=subprocess.PIPE, stderr=out)
        assert service.stdout is not None
        try:
            provoke(service.stdout.readline().decode().split()[-1], mine, gone)
            for log in logs[:2]:  # both have something to complain of
                assert eventually(lambda log=log: "127.0.0.1:1" in log.read_text(errors="replace"), 180)  # type: ignore[misc]
        finally:
            for process in (worker, lost, service):
                stop(process, 10)
            service.stdout.close()
    said = "".join(log.read_text(errors="replace") for log in logs)
    assert "redis_unavailable" in said, "nothing was provoked"
    for what, secret in secrets.items():
        # Of a key engram_ID_SECRET the last part, which may hold underscores itself.
        assert secret.split("_", 2)[-1] not in said, what


def provoke(address: str, mine: str, gone: str) -> None:
    """Make failing requests of every kind, with secrets wherever a client may put them."""
    with httpx.Client(base_url=address, timeout=60) as client:
        assert client.get("/v1/models", headers=bearer(gone)).status_code == 401
        assert client.get(f"/v1/models?api_key={gone}").status_code == 401
        assert client.get("/v1/models", headers={"Authorization": f"Basic {gone}"}).status_code == 401
        assert (
            client.post("/v1/models", json={"name": "digits", **SMALL_MODEL}, headers=bearer(mine)).status_code == 201
        )
        assert client.post("/v1/models", json={"name": mine}, headers=bearer(mine)).status_code == 422
        assert client.get(f"/v1/models/digits?token={mine}", headers=bearer(mine)).status_code == 422
        form = {"name": "x"}
        files = {"data": ("x.zip", png(0, 1))}
        client.post("/v1/models/digits/tasks", data=form, files=files, headers=bearer(mine))
        client.get(f"/v1/jobs/{'0' * 32}/events", headers=bearer(mine))
        answer = client.post(
            "/v1/models/digits/predict", content=png(0, 1), headers=bearer(mine) | {"Content-Type": "image/png"}
        )
        assert answer.status_code == 409
