"""Fixture: a service that is asked by gRPC."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.settings import ServiceSettings
from testing.data.tokens import token
from testing.servers.redis import RedisServer
from testing.servers.service import Service, running


@pytest.fixture(scope="session")
def served(learned_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that listens for gRPC, too, and asks for keys; its client has one."""
    store = tmp_path_factory.mktemp("rpc") / "store"
    shutil.copytree(learned_store, store)
    redis = RedisServer()
    settings = ServiceSettings(store_url=str(store), redis_url=redis.url, drain_seconds=0, keys="required", grpc_port=0)
    try:
        with running(settings.model_copy(update={"max_request_bytes": 65536})) as service:
            service.client.headers["Authorization"] = f"Bearer {token(service.vault, 'predict')}"
            yield service
    finally:
        redis.remove()
