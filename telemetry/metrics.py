"""Prometheus metrics that services and workers share."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Literal

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.core import CounterMetricFamily

Backend = Literal["store", "redis"]
Kind = Literal["unavailable", "damaged"]

_counts: dict[tuple[Backend, Kind], int] = {
    ("store", "unavailable"): 0,
    ("store", "damaged"): 0,
    ("redis", "unavailable"): 0,
}
_lock = threading.Lock()


def count_failure(backend: Backend, kind: Kind) -> None:
    """Count a failed call of the object storage or Redis, or an object found damaged."""
    with _lock:
        _counts[backend, kind] += 1


class BackendFailures:
    """Collector of `engram_backend_failures_total` of this process, for any number of registries."""

    def collect(self) -> Iterator[CounterMetricFamily]:
        family = CounterMetricFamily(
            "engram_backend_failures",
            "Calls that the object storage or Redis did not answer, and objects that were found damaged",
            labels=("backend", "kind"),
        )
        with _lock:
            counts = dict(_counts)
        for labels, count in counts.items():
            family.add_metric(labels, count)
        yield family


def build_info(registry: CollectorRegistry, version: str) -> None:
    """Register `engram_build_info`, which is always 1, with the version as its label."""
    info = Gauge("engram_build_info", "The release that runs; always 1", ("version",), registry=registry)
    info.labels(version).set(1)
