"""Prometheus metrics of a worker process, in base units, with no label that a client can make up."""

from __future__ import annotations

import logging
from collections import OrderedDict
from datetime import datetime
from importlib.metadata import version
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, start_http_server

from telemetry.metrics import BackendFailures, build_info
from vault.jobs.job import Job

log = logging.getLogger("engram.worker")

REGISTRY = CollectorRegistry()
"""One for the process, as a worker is."""

_JOB_BUCKETS = (1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14400, 43200, 86400)
_PHASE_BUCKETS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 14400)
OUTCOMES = (
    "succeeded",
    "failed",
    "cancelled",
    "interrupted",
    "lease_lost",
    "moved",
    "store_unavailable",
    "overtaken",
    "broken_off",
)
"""Outcomes of attempts: that of the job, or why the job stays open or was ended by another process."""
_MODELS = 256
"""Models that figures are shown of, those that learned last: a worker lives long, and models come and go."""

ProcessCollector(registry=REGISTRY)
REGISTRY.register(BackendFailures())
build_info(REGISTRY, version("engram-vision"))

jobs = Counter("engram_jobs", "Jobs that this worker ended, by outcome", ("outcome",), registry=REGISTRY)
failures = Counter("engram_job_failures", "Jobs that failed, by the code of the error", ("code",), registry=REGISTRY)
duration = Histogram(
    "engram_job_duration_seconds",
    "From a job's submission to its end, by outcome",
    ("outcome",),
    registry=REGISTRY,
    buckets=_JOB_BUCKETS,
)
wait = Histogram(
    "engram_job_wait_seconds", "From a job's submission to its first attempt", registry=REGISTRY, buckets=_JOB_BUCKETS
)
attempts = Counter("engram_job_attempts", "Attempts at jobs, by how they ended", ("outcome",), registry=REGISTRY)
running = Gauge("engram_jobs_running", "Jobs that this worker works on now", registry=REGISTRY)
phases = Histogram(
    "engram_job_phase_duration_seconds",
    "Time in a phase of one attempt",
    ("phase",),
    registry=REGISTRY,
    buckets=_PHASE_BUCKETS,
)
checkpoints = Histogram(
    "engram_job_checkpoint_duration_seconds",
    "Time to leave a checkpoint in the store",
    registry=REGISTRY,
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
blob_bytes = Counter(
    "engram_job_blob_bytes",
    "Bytes of models' blobs that jobs read and wrote",
    ("kind",),
    registry=REGISTRY,
)
resumed = Counter("engram_job_resumptions", "Attempts that went on from a checkpoint", registry=REGISTRY)
silence = Gauge(
    "engram_consumer_silent_seconds",
    "How long the broker has not answered this worker, which is not at work",
    registry=REGISTRY,
)
lost = Counter("engram_lease_losses", "Leases that another worker took meanwhile", registry=REGISTRY)
accuracy = Gauge(
    "engram_learned_accuracy_ratio",
    "Held-out accuracy of the task a model learned last, with the task given",
    ("model",),
    registry=REGISTRY,
)
recognised = Gauge(
    "engram_learned_recognised_ratio",
    "Share of the held-out images of the task a model learned last that are given to it",
    ("model",),
    registry=REGISTRY,
)

# What is counted from nought shows its first increase.
for _outcome in OUTCOMES:
    attempts.labels(_outcome)
for _outcome in ("succeeded", "failed", "cancelled"):
    jobs.labels(_outcome)
for _kind in ("read", "written"):
    blob_bytes.labels(_kind)
for _code in ("too_many_attempts", "model_moved", "retention_violated", "damaged", "job_timeout", "job_out_of_memory"):
    failures.labels(_code)

_shown: OrderedDict[str, None] = OrderedDict()
"""The models that figures are shown of, the one that learned last at the end."""


def serve(host: str, port: int) -> WSGIServer | None:
    """Offer all of it at `http://host:port/metrics`; None, and an error in the log, where the port cannot be had."""
    try:
        server, _ = start_http_server(port, host, REGISTRY)
    except OSError as error:
        log.error("metrics cannot be offered on %s:%d: %s; the work goes on", host, port, error)
        return None
    return server


def begun(job: Job) -> None:
    """Count a job whose first attempt begins."""
    wait.observe(max(0.0, (datetime.now().astimezone() - datetime.fromisoformat(job.created_at)).total_seconds()))


def ended(job: Job) -> None:
    """Count a job that has got its result."""
    jobs.labels(job.state).inc()
    if job.finished_at is not None:
        taken = datetime.fromisoformat(job.finished_at) - datetime.fromisoformat(job.created_at)
        duration.labels(job.state).observe(max(0.0, taken.total_seconds()))
    if job.state == "failed" and job.error is not None:
        failures.labels(job.error["code"]).inc()
    report = (job.result or {}).get("report") or {}
    if job.state == "succeeded" and report:
        _show(job.model, report["accuracy"].get("kept"), report["recognised"])


def _show(model: str, kept: float | None, given: float) -> None:
    _shown[model] = None
    _shown.move_to_end(model)
    while len(_shown) > _MODELS:
        gone, _ = _shown.popitem(last=False)
        accuracy.remove(gone)
        recognised.remove(gone)
    if kept is not None:
        accuracy.labels(model).set(kept)
    recognised.labels(model).set(given)
