"""Redis connections, and their failures as errors of the vault."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.exceptions import AuthenticationError, ConnectionError, RedisError, TimeoutError
from redis.retry import Retry

from telemetry.metrics import count_failure
from vault.errors import RedisUnavailable

PREFIX = "engram:"
"""Begins every key."""

_CONNECT_SECONDS = 2.0
_ANSWER_SECONDS = 5.0
_KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 20_000}
"""Seconds, seconds, probes, milliseconds: after 25 s at most the system gives up a connection that nothing answers."""


def keepalive(url: str) -> dict[str, Any]:
    """Options of a client by which the system notices that its peer is gone; none for a Unix socket, which needs none.

    Where a system has not some of these, its own values stay.
    """
    if urlsplit(url).scheme == "unix":
        return {}
    options = {getattr(socket, name): value for name, value in _KEEPALIVE.items() if hasattr(socket, name)}
    return {"socket_keepalive": True, "socket_keepalive_options": options}


def connect(url: str) -> redis.Redis:
    """A client that is safe to share between threads; connects when first used, again after a Redis restart."""
    return redis.Redis.from_url(
        url,
        decode_responses=True,
        socket_connect_timeout=_CONNECT_SECONDS,
        socket_timeout=_ANSWER_SECONDS,
        health_check_interval=30,
        retry=Retry(ExponentialBackoff(cap=0.2, base=0.02), 2, supported_errors=(ConnectionError, TimeoutError)),
        **keepalive(url),
    )


def reachable(url: str) -> bool:
    """Whether Redis answers a new connection now, within seconds."""
    client = redis.Redis.from_url(
        url,
        socket_connect_timeout=_CONNECT_SECONDS,
        socket_timeout=_CONNECT_SECONDS,
        retry=Retry(NoBackoff(), 0),
    )
    with client:
        try:
            return bool(client.ping())
        except (RedisError, OSError):
            return False


def connect_async(url: str) -> redis.asyncio.Redis:
    """A client for one task of an event loop, to be closed with `aclose()`.

    It waits for an answer without end, so its calls belong under `asyncio.timeout`. A timeout of the client itself
    would use `asyncio.wait_for`, which before Python 3.12 may swallow the cancellation of its task.
    """
    return redis.asyncio.Redis.from_url(
        url,
        decode_responses=True,
        socket_connect_timeout=_CONNECT_SECONDS,
        socket_timeout=None,
        retry=AsyncRetry(ExponentialBackoff(cap=0.2, base=0.02), 0),
        **keepalive(url),
    )


@contextmanager
def redis_errors() -> Iterator[None]:
    """Inside, every failure of Redis is raised as RedisUnavailable."""
    try:
        yield
    except AuthenticationError as error:
        count_failure("redis", "unavailable")
        raise RedisUnavailable(f"Redis refuses the credentials: {error}") from error
    except RedisError as error:
        count_failure("redis", "unavailable")
        raise RedisUnavailable(f"Redis cannot be used: {error}") from error
    except OSError as error:
        count_failure("redis", "unavailable")
        raise RedisUnavailable(f"Redis cannot be reached: {error}") from error
