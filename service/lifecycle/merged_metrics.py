"""Metrics of several processes, merged into those of the service that they are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

SUMMED = frozenset(
    {
        "engram_http_requests_in_flight",
        "engram_queue_images",
        "engram_queue_limit_images",
        "process_open_fds",
        "process_resident_memory_bytes",
        "process_virtual_memory_bytes",
    }
)
"""Gauges of which each process has its share."""

LEAST = frozenset({"engram_ready", "engram_live_models", "engram_live_version", "engram_live_tasks"})
"""Gauges of what holds only as far as it does in every process; of all others the largest value counts."""


class _Merged(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def merged(texts: Sequence[bytes]) -> bytes:
    """One text exposition of several: counts and histograms added up, gauges as they are meant."""
    families: dict[str, Metric] = {}
    values: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], list[float]]] = {}
    for text in texts:
        for family in text_string_to_metric_families(text.decode()):
            families.setdefault(family.name, family)
            into = values.setdefault(family.name, {})
            for sample in family.samples:
                into.setdefault((sample.name, tuple(sorted(sample.labels.items()))), []).append(sample.value)
    found = []
    for name, family in families.items():
        whole = Metric(name, family.documentation, family.type)
        whole.samples = [
            Sample(sample, dict(labels), _joined(name, family.type, sample, each))
            for (sample, labels), each in values[name].items()
        ]
        found.append(whole)
    registry = CollectorRegistry()
    registry.register(_Merged(found))
    return generate_latest(registry)


def _joined(name: str, kind: str, sample: str, values: Sequence[float]) -> float:
    if sample.endswith("_created"):
        return min(values)
    if kind in ("counter", "histogram", "summary") or name in SUMMED:
        return sum(values)
    return min(values) if name in LEAST else max(values)
