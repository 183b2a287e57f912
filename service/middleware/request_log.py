"""Request ids, the log's line for each request, and the metric of its latency."""

from __future__ import annotations

import itertools
import logging
import re
import secrets
from collections.abc import Iterable, MutableMapping
from typing import Any, Protocol

from prometheus_client import Histogram
from starlette.types import Scope

from service.metrics import Metrics
from telemetry import logs

log = logging.getLogger("engram.service.requests")

_ID = re.compile(rb"[A-Za-z0-9._:=+/-]{1,128}")
_PROCESS = secrets.token_hex(8)
"""The beginning of the ids that this process makes; they need to be no secret."""
_numbers = itertools.count()
PROBES = frozenset({"/livez", "/readyz", "/metrics", "/v2/health/live", "/v2/health/ready"})
"""Paths of health checks and scrapes."""
_LONGEST_NAME = 120
"""Characters that are logged of a name out of a path; such a name may be anything."""


def request_id(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """The `X-Request-ID` of the headers when it is well formed, else a new one."""
    for name, value in headers:
        if name == b"x-request-id" and _ID.fullmatch(value):
            return value.decode()
    return f"{_PROCESS}{next(_numbers):016x}"


def is_probe(scope: MutableMapping[str, Any]) -> bool:
    """Whether it is a health check or a scrape, which is neither traced nor, but for debugging, logged."""
    return scope["path"] in PROBES


class Answered(Protocol):
    """What the line of a request says of its bodies."""

    @property
    def received(self) -> int: ...

    @property
    def sent(self) -> int: ...


class RequestLog:
    """Writer of one line, and of one observation of the time, for each request that was answered.

    Both are under the template of the route. Neither the query nor a body is ever written down.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._observed: dict[tuple[str, str, int], Histogram] = {}

    def write(self, scope: Scope, exchange: Answered, status: int, seconds: float) -> None:
        """The answer to the request of this scope is over, after so many seconds."""
        route = getattr(scope.get("route"), "path", "unmatched")
        key = (scope["method"] if route != "unmatched" else "any", route, status)
        if (observed := self._observed.get(key)) is None:
            method, _, number = key
            observed = self._observed[key] = self._metrics.requests.labels(method, route, str(number))
        observed.observe(seconds)
        level = logging.DEBUG if is_probe(scope) else logging.INFO
        if not log.isEnabledFor(level):
            return
        fields: dict[str, Any] = {
            "method": scope["method"],
            "route": route,
            "status": status,
            "duration_seconds": round(seconds, 6),
            "request_bytes": exchange.received,
            "response_bytes": exchange.sent,
        }
        if (caller := scope.get("state", {}).get("caller")) is not None:
            fields["caller"] = str(caller)
        for parameter, field in (("model", "model"), ("job", "job_id")):
            if (named := scope.get("path_params", {}).get(parameter)) is not None:
                fields[field] = str(named)[:_LONGEST_NAME]
        logs.write(log, level, f"{scope['method']} {route} {status}", fields)
