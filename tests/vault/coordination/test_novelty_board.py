"""Tests of the novelty board."""

from __future__ import annotations

import logging
import time

import pytest

from testing.servers.redis import RedisServer
from vault.coordination import connection
from vault.coordination.novelty_board import SPAN_SECONDS, SPANS, TTL_SECONDS, NoveltyBoard, SpanCounts
from vault.vault import Vault


def test_the_latest_report_of_each_replica(vault: Vault) -> None:
    board = vault.novelty
    assert board.read("lines") == {}
    assert board.write("a", {"lines": {"samples": 1}, "other": {"samples": 2}})
    assert board.write("b", {"lines": {"samples": 3}})
    assert board.write("a", {"lines": {"samples": 4}})
    assert board.write("a", {})
    assert board.read("lines") == {"a": {"samples": 4}, "b": {"samples": 3}}
    assert board.read("other") == {"a": {"samples": 2}}
    assert board.read_all(["other", "none", "lines"]) == {
        "other": {"a": {"samples": 2}},
        "none": {},
        "lines": {"a": {"samples": 4}, "b": {"samples": 3}},
    }
    assert board.read_all([]) == {}


def test_a_replica_withdraws_its_own(vault: Vault) -> None:
    for replica in "ab":
        vault.novelty.write(replica, {"lines": {}, "other": {}})
    vault.novelty.clear("a", ["lines"])
    assert set(vault.novelty.read("lines")) == {"b"}
    assert set(vault.novelty.read("other")) == {"a", "b"}


def test_nothing_stays_for_ever(vault: Vault) -> None:
    vault.novelty.write("a", {"lines": {}})
    keys = vault.redis.keys("*")
    assert len(keys) == 2
    assert all(0 < vault.redis.pttl(key) <= 1000 * TTL_SECONDS for key in keys)


def test_who_is_silent_is_taken_for_gone(vault: Vault) -> None:
    brief = NoveltyBoard(vault.redis, 1)
    brief.write("a", {"lines": {}})
    vault.novelty.write("b", {"lines": {}})
    time.sleep(1.2)
    assert set(vault.novelty.read("lines")) == {"b"}
    assert vault.redis.scard(f"{connection.PREFIX}novelty:lines") == 1
    vault.novelty.write("a", {"lines": {}})
    assert set(vault.novelty.read("lines")) == {"a", "b"}


def test_counts_of_all_replicas_are_together_for_a_day(vault: Vault) -> None:
    board, last = vault.novelty, 20 * SPANS + 5
    assert board.counts("line", last) == {}
    assert board.count(
        {"line": {last: SpanCounts(8, 1), last - 10: SpanCounts(2, 0)}, "other": {last: SpanCounts(5, 5)}}
    )
    assert NoveltyBoard(vault.redis).count({"line": {last: SpanCounts(1, 1), last - SPANS: SpanCounts(9, 9)}})
    assert board.count({})
    assert board.counts("line", last) == {last - 10: SpanCounts(2, 0), last: SpanCounts(9, 2)}
    assert board.counts("line", last + SPANS - 1) == {last: SpanCounts(9, 2)}
    assert board.counts("line", last + 2 * SPANS) == {}
    keys = vault.redis.keys("*counts*")
    assert len(keys) == 3
    assert all(0 < vault.redis.ttl(key) <= 2 * SPANS * SPAN_SECONDS for key in keys)


def test_without_redis_nothing_fails_and_it_is_said_once(
    own_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    client = connection.connect(own_redis.url)
    board = NoveltyBoard(client)
    own_redis.stop()
    with caplog.at_level(logging.WARNING, "engram.vault"):
        for _ in range(2):
            assert not board.write("a", {"lines": {}})
            assert board.read("lines") == {}
            board.clear("a", ["lines"])
            assert not board.count({"line": {1: SpanCounts(1, 0)}})
            assert board.counts("line", 1) is None
    assert len(caplog.records) == 1
    own_redis.start()
    assert board.write("a", {"lines": {}})
    assert set(board.read("lines")) == {"a"}
    client.close()
