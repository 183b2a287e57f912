"""A real Redis and a real S3 server for the whole run, and a vault of its own for each test."""

from __future__ import annotations

import gc
import os
import sys
import tempfile
import uuid
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import certifi
import pytest
import redis
from hypothesis import HealthCheck, settings

from testing.processes.learning_service import learning_service
from testing.servers.redis import RedisServer
from testing.servers.s3 import AWS, BUCKET, s3_server
from testing.servers.service import Service
from vault.settings import VaultSettings
from vault.vault import Vault

# The same examples in every run, and however long they take: a machine that is busy is none of their business.
settings.register_profile(
    "engram", deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("engram")


def pytest_configure(config: pytest.Config) -> None:
    """Have clients know a single authority, since nobody is asked by TLS here; storages refuse to do without any.

    Reading all takes 20 ms for each client that is made, of which there are thousands: tests ask until something is so.
    """
    first, end, _ = Path(certifi.where()).read_text().partition("-----END CERTIFICATE-----\n")
    folder = tempfile.TemporaryDirectory(prefix="engram-tests-")
    config.add_cleanup(folder.cleanup)
    (authority := Path(folder.name, "authority.pem")).write_text(first + end)
    os.environ["SSL_CERT_FILE"] = str(authority)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Keep collections of garbage out of what is imported and collected here, which lives as long as the run.

    It is a million objects, and a worker collects garbage after each job.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        _set_imports_aside()


MANY = 200
"""Modules that are worth a collection of garbage to be passed over by all later ones."""

_set_aside = 0
"""How many modules there were when they were last set aside."""


def _set_imports_aside() -> None:
    global _set_aside
    gc.collect()
    gc.freeze()
    _set_aside = len(sys.modules)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, object, object]:
    """Do so again between files once much has been imported that only tests need, as PyTorch's compiler is."""
    done = yield
    if nextitem is not None and nextitem.path != item.path and len(sys.modules) > _set_aside + MANY:
        _set_imports_aside()
    return done


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object:
    """Share the files out as `tests.distribution` says, where they are to be shared out by files."""
    if config.getoption("dist") != "loadfile":
        return None
    from tests.distribution import Distribution

    return Distribution(config, log)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Order the files for processes that share them; alone, they keep the order of their names."""
    if hasattr(config, "workerinput"):
        from tests.distribution import ordered

        items[:] = ordered(items)


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


@pytest.fixture(scope="module")
def learning(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with the model `digits` and its two tasks, and a worker; tests change only models of their own.

    It ends with the file, since the worker looks for jobs all the time.
    """
    with learning_service(tmp_path_factory.mktemp("learning") / "store") as service:
        yield service
