"""Fixtures: services over stores with and without learned tasks."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.models import live
from service.settings import ServiceSettings
from testing.data.models import TASKS, create, learn
from testing.servers.redis import RedisServer
from testing.servers.service import PATIENCE, Service, running
from vault.settings import VaultSettings
from vault.vault import Vault


@pytest.fixture(scope="session")
def learned_store(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Path:
    """A store with a model that has learned two tasks; to be copied."""
    folder = tmp_path_factory.mktemp("learned") / "store"
    with Vault.connect(VaultSettings(store_url=str(folder), redis_url=redis_url)) as vault:
        create(vault)
        for task, digits in TASKS.items():
            learn(vault, task, digits)
    # So that what a test puts there is all there is.
    for jobs in ("jobs", "recent", "open"):
        shutil.rmtree(folder / jobs)
    return folder


@pytest.fixture(scope="session")
def reader(learned_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with the model `digits` and its two tasks, for tests that change nothing."""
    store = tmp_path_factory.mktemp("reader") / "store"
    shutil.copytree(learned_store, store)
    # In the Redis of the others it would be one more replica of the same model.
    server = RedisServer()
    try:
        with running(ServiceSettings(store_url=str(store), redis_url=server.url, drain_seconds=0)) as service:
            yield service
    finally:
        server.remove()


@pytest.fixture(autouse=True)
def _looks_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers show what is in the store, also where a busy machine takes long to look at it."""
    monkeypatch.setattr(live, "_REFRESH_SECONDS", PATIENCE)


@pytest.fixture
def settings(vault_settings: VaultSettings) -> ServiceSettings:
    """Settings of a service over an empty store; leases outlast any test, so that none ends on a busy machine."""
    settings = vault_settings.model_copy(update={"lease_seconds": 3 * PATIENCE})
    return ServiceSettings(**settings.model_dump(), drain_seconds=0, poll_seconds=0.2)


@pytest.fixture
def learned_settings(settings: ServiceSettings, learned_store: Path) -> ServiceSettings:
    """Settings of a service over a store of its own with the two tasks."""
    assert settings.store_folder is not None
    shutil.copytree(learned_store, settings.store_folder)
    return settings


@pytest.fixture
def empty(settings: ServiceSettings) -> Iterator[Service]:
    """A service without models."""
    with running(settings) as service:
        yield service


@pytest.fixture
def service(learned_settings: ServiceSettings) -> Iterator[Service]:
    """A service with the model `digits` and its two tasks."""
    with running(learned_settings) as service:
        yield service
