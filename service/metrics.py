"""What Prometheus is told. Base units, and no label that a client can make up."""

from __future__ import annotations

import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_IMAGES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """The measurements of one app, in a registry of its own so that several apps fit into one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Histogram(
            "engram_http_request_duration_seconds",
            "Time from a request's first byte to its answer's last",
            ("method", "route", "status"),
            registry=self.registry,
            buckets=_SECONDS,
        )
        self.in_flight = Gauge("engram_http_requests_in_flight", "Requests being answered", registry=self.registry)
        self.batches = Histogram(
            "engram_batch_images", "Images of one pass through a model", registry=self.registry, buckets=_IMAGES
        )
        self.inference = Histogram(
            "engram_inference_duration_seconds", "Time of one batch", registry=self.registry, buckets=_SECONDS
        )
        self.waiting = Gauge("engram_queue_images", "Images waiting for a model", registry=self.registry)
        self.refused = Counter(
            "engram_overloaded", "Requests refused since there was no room", ("kind",), registry=self.registry
        )
        self.images = Counter("engram_images", "Images decoded, by outcome", ("outcome",), registry=self.registry)
        self.heatmaps = Histogram(
            "engram_heatmap_duration_seconds", "Time of one heatmap", registry=self.registry, buckets=_SECONDS
        )
        self.uploads = Counter("engram_upload_bytes", "Training data received", registry=self.registry)
        self.live = Gauge("engram_live_models", "Models that can answer", registry=self.registry)
        self.version = Gauge("engram_live_version", "Version that answers", ("model",), registry=self.registry)
        self.swaps = Counter(
            "engram_swaps", "Versions taken into service, by outcome", ("outcome",), registry=self.registry
        )
        self.swap_seconds = Histogram(
            "engram_swap_duration_seconds",
            "Time to fetch, build and warm a version",
            registry=self.registry,
            buckets=_SECONDS,
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
        self.ready = Gauge("engram_ready", "Whether /readyz says 200", registry=self.registry)

    def text(self) -> bytes:
        """All of it in the text exposition format."""
        return generate_latest(self.registry)


class RequestMetrics:
    """ASGI middleware that times every request under its route's template."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 500

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        began = time.perf_counter()
        self._metrics.in_flight.inc()
        try:
            await self._app(scope, receive, watched)
        finally:
            self._metrics.in_flight.dec()
            route = getattr(scope.get("route"), "path", "unmatched")
            method = scope["method"] if route != "unmatched" else "any"
            self._metrics.requests.labels(method, route, str(status)).observe(time.perf_counter() - began)
