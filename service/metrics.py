"""Prometheus metrics of the service, in base units, with no label that a client can make up."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from engram.nn.capacity import LayerCapacity
from telemetry.metrics import BackendFailures, build_info

_SECONDS_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_IMAGES_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_ENGRAMS_BUCKETS = (0, 1, 2, 3, 4, 8, 16, 32, 64)


class Metrics:
    """Metrics of one app, in a registry of its own so that several apps fit into one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.registry.register(BackendFailures())
        build_info(self.registry, version("engram-vision"))
        self.requests = Histogram(
            "engram_http_request_duration_seconds",
            "Time from a request's first byte to its answer's last",
            ("method", "route", "status"),
            registry=self.registry,
            buckets=_SECONDS_BUCKETS,
        )
        self.in_flight = Gauge("engram_http_requests_in_flight", "Requests being answered", registry=self.registry)
        self.batches = Histogram(
            "engram_batch_images", "Images of one pass through a model", registry=self.registry, buckets=_IMAGES_BUCKETS
        )
        self.engrams = Histogram(
            "engram_answer_engrams",
            "Tasks whose networks were run for one image that no task was given for",
            registry=self.registry,
            buckets=_ENGRAMS_BUCKETS,
        )
        self.inference = Histogram(
            "engram_inference_duration_seconds", "Time of one batch", registry=self.registry, buckets=_SECONDS_BUCKETS
        )
        self.waiting = Gauge("engram_queue_images", "Images waiting for a model", registry=self.registry)
        self.queue_limit = Gauge(
            "engram_queue_limit_images", "Images of one model that may wait, after which 503", registry=self.registry
        )
        self.refused = Counter(
            "engram_refused_requests",
            "Requests refused since there was no room, or their process had died",
            ("kind",),
            registry=self.registry,
        )
        self.processes = Gauge(
            "engram_service_processes", "Processes of this service that take requests", registry=self.registry
        )
        self.processes.set(1)
        self.images = Counter("engram_images", "Images decoded, by outcome", ("outcome",), registry=self.registry)
        self.heatmaps = Histogram(
            "engram_heatmap_duration_seconds", "Time of one heatmap", registry=self.registry, buckets=_SECONDS_BUCKETS
        )
        self.uploads = Counter("engram_upload_bytes", "Training data received", registry=self.registry)
        self._of_models()
        self._of_jobs()

    def _of_models(self) -> None:
        self.live = Gauge("engram_live_models", "Models that can answer", registry=self.registry)
        self.troubled = Gauge(
            "engram_troubled_models",
            "Models whose newest version cannot be loaded or learned on",
            registry=self.registry,
        )
        self.version = Gauge("engram_live_version", "Version that answers", ("model",), registry=self.registry)
        self.tasks = Gauge("engram_live_tasks", "Tasks of the version that answers", ("model",), registry=self.registry)
        self.capacity = Gauge(
            "engram_capacity_used_ratio",
            "Units owned by tasks, of the budget, in the layer that has least left",
            ("model",),
            registry=self.registry,
        )
        self.units = Gauge(
            "engram_owned_units", "Units of all layers that tasks own", ("model",), registry=self.registry
        )
        self.swaps = Counter(
            "engram_swaps", "Versions taken into service, by outcome", ("outcome",), registry=self.registry
        )
        self.swap_seconds = Histogram(
            "engram_swap_duration_seconds",
            "Time to fetch, build and warm a version",
            registry=self.registry,
            buckets=_SECONDS_BUCKETS,
        )
        self.novelty = Gauge(
            "engram_novelty_state",
            "What a model's images are to this replica: 0 known, 1 drift, 2 new task suspected",
            ("model",),
            registry=self.registry,
        )
        self.unknown = Counter(
            "engram_unknown_images",
            "Images that no task of the live version accepts, of those whose task was not told",
            ("model",),
            registry=self.registry,
        )
        self.judged = Counter(
            "engram_judged_images",
            "Images that were judged for novelty, since their task was not told",
            ("model",),
            registry=self.registry,
        )

    def _of_jobs(self) -> None:
        self.ready = Gauge("engram_ready", "Whether /readyz says 200", registry=self.registry)
        self.open_jobs = Gauge(
            "engram_open_jobs",
            "Jobs without a result in the whole cluster; the same from each replica",
            ("state",),
            registry=self.registry,
        )
        self.oldest_job = Gauge(
            "engram_oldest_waiting_job_seconds",
            "Age of the oldest open job that no worker has taken up; the same from each replica",
            registry=self.registry,
        )

    def show(self, model: str, version: int, capacity: Sequence[LayerCapacity], tasks: int) -> None:
        """What answers for a model now."""
        self.version.labels(model).set(version)
        self.tasks.labels(model).set(tasks)
        self.units.labels(model).set(sum(layer.units - layer.free for layer in capacity))
        self.capacity.labels(model).set(max((1 - layer.free / layer.units for layer in capacity), default=0.0))

    def forget(self, model: str) -> None:
        """A model is gone, and so is all that had its name."""
        for metric in (self.version, self.tasks, self.units, self.capacity):
            with suppress(KeyError):
                metric.remove(model)

    def text(self) -> bytes:
        """All of it in the text exposition format."""
        return generate_latest(self.registry)
