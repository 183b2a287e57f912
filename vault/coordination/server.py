"""Product, version and mode of a Redis or Valkey server, and whether it can be used."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Self

import redis
from redis.exceptions import ResponseError

from vault.coordination.connection import connect, redis_errors
from vault.errors import RedisUnavailable, UnsuitableRedis

log = logging.getLogger("engram.vault")

_MENDED = {
    "Redis": {(6, 2): 20, (7, 2): 11, (7, 4): 6, (8, 0): 4, (8, 2): 2},
    "Valkey": {(7, 2): 11, (8, 0): 6, (8, 1): 4},
}
"""First patch of each series without CVE-2025-49844, by which a script runs code in the server; later series never had
it, and series between them were given up before it was mended."""
_HOLE = "CVE-2025-49844"
_VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)")
_AGAIN_SECONDS = 10.0


class ServerVersion(NamedTuple):
    """Product (`Redis`, `Valkey`, or the name of another) and version of a server."""

    product: str
    version: tuple[int, int, int]

    @classmethod
    def of(cls, info: Mapping[str, Any]) -> Self | None:
        """What the answer to `INFO` says; None if it does not tell."""
        for product in ("Valkey", "Dragonfly", "Keydb"):
            # Valkey says too which Redis it is compatible with.
            if number := _numbers(info.get(f"{product.lower()}_version")):
                return cls(product, number)
        number = _numbers(info.get("redis_version"))
        return cls("Redis", number) if number else None

    @classmethod
    def printed(cls, text: str) -> Self | None:
        """What a server program prints for `--version`; None if that is something else."""
        number = _numbers(text)
        return cls("Valkey" if "valkey" in text.lower() else "Redis", number) if number else None

    @property
    def weakness(self) -> str | None:
        """One sentence that names the version and what is to be feared of it; None where nothing is known."""
        series = _MENDED.get(self.product, {})
        *above, patch = self.version
        if not series or tuple(above) > max(series):
            return None
        first = series.get((above[0], above[1]))
        if first is not None and patch >= first:
            return None
        mended = ", ".join(f"{major}.{minor}.{number}" for (major, minor), number in sorted(series.items()))
        return f"{self} has a known hole ({_HOLE}), unless its distributor has mended it; it is mended in {mended}."

    def __str__(self) -> str:
        return f"{self.product} {'.'.join(map(str, self.version))}"


def check_server(client: redis.Redis) -> None:
    """Log a warning about a version with a known hole.

    Raises
    ------
    UnsuitableRedis
        It is a node of a cluster, or a Sentinel.
    RedisUnavailable
    """
    with redis_errors():
        try:
            info: Mapping[str, Any] = client.info()
        except ResponseError as error:  # as where an access list forbids it
            log.info("the Redis server does not say which version it is: %s", error)
            return
    mode = info.get("server_mode") or info.get("redis_mode")
    if mode == "sentinel":
        raise UnsuitableRedis("The server at ENGRAM_REDIS_URL is a Sentinel and keeps no data: name what it watches.")
    if mode == "cluster" or str(info.get("cluster_enabled", 0)) == "1":
        raise UnsuitableRedis(
            "The server at ENGRAM_REDIS_URL is a node of a cluster, which Celery cannot use: name a server that runs by"
            " itself (cluster-enabled no), with replicas if you like."
        )
    found = ServerVersion.of(info)
    if found is not None and (weakness := found.weakness):
        log.warning("%s", weakness)


def check_server_when_reached(redis_url: str, on_unsuitable: Callable[[], None]) -> None:
    """Check the server now, or as soon as it can be reached: nothing here waits for one that is away.

    Parameters
    ----------
    on_unsuitable
        Called in another thread when a server that was away turns out to be of no use; the error is logged.

    Raises
    ------
    UnsuitableRedis
        The server can be reached, and is of no use.
    """
    client = connect(redis_url)
    try:
        check_server(client)
    except RedisUnavailable as error:
        log.info("the Redis server will be looked at later: %s", error)
        threading.Thread(target=_check_later, args=(client, on_unsuitable), name="redis check", daemon=True).start()
    except UnsuitableRedis:
        client.close()
        raise
    else:
        client.close()


def _check_later(client: redis.Redis, on_unsuitable: Callable[[], None]) -> None:
    pause = threading.Event()
    with client:
        while not pause.wait(_AGAIN_SECONDS):
            try:
                check_server(client)
            except RedisUnavailable:
                continue
            except UnsuitableRedis as error:
                log.critical("%s", error, extra={"code": error.code})
                on_unsuitable()
            return


def _numbers(text: Any) -> tuple[int, int, int] | None:
    found = _VERSION.search(str(text)) if text is not None else None
    return (int(found[1]), int(found[2]), int(found[3])) if found else None
