"""Tests of the check of Redis and Valkey servers, real ones among them."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from testing.servers.redis import RedisServer
from testing.servers.service import wait_until
from vault.coordination.connection import connect
from vault.coordination.server import ServerVersion, check_server, check_server_when_reached
from vault.errors import RedisUnavailable, UnsuitableRedis


@pytest.mark.parametrize(
    ("product", "version", "weak"),
    [
        ("Redis", (5, 0, 14), True),
        ("Redis", (6, 2, 14), True),
        ("Redis", (6, 2, 19), True),
        ("Redis", (6, 2, 20), False),
        ("Redis", (7, 0, 15), True),
        ("Redis", (7, 2, 10), True),
        ("Redis", (7, 2, 11), False),
        ("Redis", (7, 4, 5), True),
        ("Redis", (7, 4, 6), False),
        ("Redis", (8, 0, 3), True),
        ("Redis", (8, 0, 4), False),
        ("Redis", (8, 2, 1), True),
        ("Redis", (8, 2, 2), False),
        ("Redis", (8, 4, 0), False),
        ("Valkey", (7, 2, 10), True),
        ("Valkey", (7, 2, 11), False),
        ("Valkey", (8, 0, 5), True),
        ("Valkey", (8, 0, 6), False),
        ("Valkey", (8, 1, 3), True),
        ("Valkey", (8, 1, 4), False),
        ("Valkey", (9, 1, 2), False),
        ("Dragonfly", (1, 0, 0), False),
    ],
)
def test_which_versions_are_weak(product: str, version: tuple[int, int, int], weak: bool) -> None:
    found = ServerVersion(product, version)
    assert (found.weakness is not None) == weak
    if found.weakness is not None:
        assert f"{product} {'.'.join(map(str, version))} has a known hole (CVE-2025-49844)" in found.weakness


@pytest.mark.parametrize(
    ("info", "shown"),
    [
        ({"redis_version": "6.2.14"}, "Redis 6.2.14"),
        ({"redis_version": "7.2.4", "server_name": "valkey", "valkey_version": "8.1.3"}, "Valkey 8.1.3"),
        ({"redis_version": "7.4.0", "dragonfly_version": "df-v1.27.1"}, "Dragonfly 1.27.1"),
        ({"redis_version": "255.255.255"}, "Redis 255.255.255"),
        ({}, "None"),
        ({"redis_version": "unstable"}, "None"),
    ],
)
def test_what_a_server_says_of_itself(info: dict[str, str], shown: str) -> None:
    assert str(ServerVersion.of(info)) == shown


def test_what_programs_print() -> None:
    redis = "Redis server v=6.2.14 sha=40305114:0 malloc=libc bits=64 build=dff95a8e7a99d269"
    valkey = "Valkey server v=9.1.2 sha=00000000:1 malloc=libc bits=64 build=1536df31c0395150"
    assert ServerVersion.printed(redis) == ("Redis", (6, 2, 14))
    assert ServerVersion.printed(valkey) == ("Valkey", (9, 1, 2))
    assert ServerVersion.printed("") is None


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """A server with the options that the test names."""
    server = RedisServer(**getattr(request, "param", {}))
    yield server
    server.remove()


def test_the_server_that_comes_along_is_sound(server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    with connect(server.url) as client:
        version = ServerVersion.of(client.info())
        assert version is not None
        assert version.weakness is None
        check_server(client)
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []


def test_a_weak_server_is_warned_of(server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    with connect(server.url) as client:
        answer = client.info() | {"valkey_version": "8.1.3"}
        client.set_response_callback("INFO", lambda _: answer)
        check_server(client)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "Valkey 8.1.3 has a known hole (CVE-2025-49844)" in record.getMessage()


@pytest.mark.parametrize("server", [{"cluster-enabled": "yes"}], indirect=True)
def test_a_node_of_a_cluster_is_refused(server: RedisServer) -> None:
    with pytest.raises(UnsuitableRedis, match="a node of a cluster, which Celery cannot use"):
        check_server_when_reached(server.url, lambda: None)


@pytest.mark.parametrize("server", [{"requirepass": "hunter22"}], indirect=True)
def test_who_may_not_ask_is_told_later(server: RedisServer) -> None:
    with connect(server.url) as client, pytest.raises(RedisUnavailable, match="refuses the credentials"):
        check_server(client)


def test_a_server_may_keep_its_version_to_itself(server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    with connect(server.url) as client:
        client.acl_setuser("shy", enabled=True, nopass=True, commands=["+@all", "-info"], keys=["*"])
    with connect(server.url.replace("unix://", "unix://shy:x@")) as client, caplog.at_level(logging.INFO):
        check_server(client)
    assert "does not say which version it is" in caplog.text


@pytest.mark.parametrize("server", [{"cluster-enabled": "yes"}], indirect=True)
def test_one_that_is_away_is_looked_at_later(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("vault.coordination.server._AGAIN_SECONDS", 0.1)
    told: list[bool] = []
    server.stop()
    check_server_when_reached(server.url, lambda: told.append(True))
    assert told == []
    server.start()
    wait_until(lambda: told)
    assert "a node of a cluster" in caplog.text
