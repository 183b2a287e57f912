"""Tests of leases and their heartbeat."""

from __future__ import annotations

import threading
import time

import pytest
import redis

from testing.processes.races import race
from testing.servers.redis import RedisServer
from testing.servers.service import wait_until
from vault.coordination import connection
from vault.coordination.leases import Leases
from vault.errors import LeaseLost, RedisUnavailable
from vault.vault import Vault

LEASE = f"{connection.PREFIX}lease:lines"
"""Redis key of the lease of the model `lines`."""


def leases(vault: Vault, seconds: float) -> Leases:
    """Leases that run out sooner than the vault's."""
    return Leases(vault.redis, seconds)


def test_one_of_many_gets_it(vault: Vault) -> None:
    got = [lease for lease in race(8, lambda number: vault.leases.acquire("lines", f"w{number}")) if lease]
    assert len(got) == 1
    holder = vault.leases.holder("lines")
    assert holder == got[0].holder
    assert vault.leases.acquire("other", "w9") is not None


def test_released_it_is_free(vault: Vault) -> None:
    first = vault.leases.acquire("lines", "a", "job-1")
    assert first is not None
    assert vault.leases.acquire("lines", "b") is None
    first.release()
    assert vault.leases.holder("lines") is None
    second = vault.leases.acquire("lines", "b")
    assert second is not None
    first.release()
    assert vault.leases.holder("lines") == second.holder


def test_it_names_the_job_under_work(vault: Vault) -> None:
    lease = vault.leases.acquire("lines", "a")
    assert lease is not None
    for job in ("job-1", None, "job-2"):
        lease.assign(job)
        holder = vault.leases.holder("lines")
        assert holder is not None
        assert (holder.owner, holder.job) == ("a", job)
        lease.renew()
    lease.release()
    assert vault.leases.holders(["lines", "other"]) == {"lines": None, "other": None}
    assert vault.leases.holders([]) == {}


def test_an_answer_lost_while_naming_a_job_does_not_lose_the_lease(
    vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = vault.leases.acquire("lines", "a")
    assert lease is not None
    evaluate = vault.redis.eval

    def lose(*arguments: str) -> None:
        evaluate(*arguments)  # type: ignore[arg-type] # handed on as they came
        raise redis.exceptions.TimeoutError("no answer")

    with monkeypatch.context() as patch:
        patch.setattr(vault.redis, "eval", lose)
        with pytest.raises(RedisUnavailable):
            lease.assign("job")
    lease.renew()
    assert vault.leases.holder("lines") == lease.holder


def test_it_runs_out_and_is_lost(vault: Vault) -> None:
    short = leases(vault, 0.2)
    first = short.acquire("lines", "a")
    assert first is not None
    time.sleep(0.3)
    second = vault.leases.acquire("lines", "b")
    assert second is not None
    for call in (first.renew, lambda: first.assign("job")):
        with pytest.raises(LeaseLost):
            call()
    first.release()
    assert vault.leases.holder("lines") == second.holder


def test_renewing_keeps_it(vault: Vault) -> None:
    lease = vault.leases.acquire("lines", "a")
    assert lease is not None
    vault.redis.pexpire(LEASE, 60_000)  # as if half of its time had passed
    lease.renew()
    assert vault.redis.pttl(LEASE) > 60_000
    assert vault.leases.acquire("lines", "b") is None


def test_the_heartbeat_keeps_it_and_gives_it_back(vault: Vault) -> None:
    lease = leases(vault, 9).acquire("lines", "a")
    assert lease is not None
    with lease:
        vault.redis.pexpire(LEASE, 6_000)
        wait_until(lambda: vault.redis.pttl(LEASE) > 6_000, 60)
        assert vault.leases.acquire("lines", "b") is None
        assert not lease.lost.is_set()
    assert vault.leases.holder("lines") is None
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("lease-")]


def test_the_heartbeat_tells_of_the_loss(vault: Vault) -> None:
    lease = leases(vault, 0.3).acquire("lines", "a")
    assert lease is not None

    def taken_away() -> bool:
        """Unless the heartbeat is quicker and takes the lost lease again."""
        vault.redis.flushall()
        return vault.leases.acquire("lines", "b") is not None

    with lease.heartbeat():
        wait_until(taken_away, 60)
        assert lease.lost.wait(60)


def test_a_lease_that_redis_lost_is_taken_anew(vault: Vault) -> None:
    lease = vault.leases.acquire("lines", "a", "job")
    assert lease is not None
    vault.redis.flushall()
    lease.renew()
    assert vault.leases.holder("lines") == lease.holder


def test_a_redis_restart_is_survived(own_redis: RedisServer) -> None:
    client = connection.connect(own_redis.url)
    short = Leases(client, 0.3)
    lease = short.acquire("lines", "a", "job")
    assert lease is not None
    with lease.heartbeat():
        own_redis.stop()
        with pytest.raises(RedisUnavailable):
            short.acquire("lines", "b")
        with pytest.raises(RedisUnavailable):
            lease.renew()
        time.sleep(0.5)
        own_redis.start()
        wait_until(lambda: short.holder("lines") == lease.holder, 60)
        assert not lease.lost.is_set()
    client.close()
