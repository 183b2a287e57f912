"""Observability of a small stack: the logs, metrics and spans of one short run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from testing.data.digits import archive, png
from testing.processes.processes import reserved_port
from testing.processes.stack import Stack, started
from testing.servers.otel_collector import Collector, collecting
from testing.servers.service import wait_until

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
SECRET = "wJalrXUtnFEMI-K7MDENG"


@dataclass(frozen=True)
class ObservedDay:
    """Logs, metrics and spans of a run with one learned task, predictions, and refused requests."""

    job: str
    service_log: list[str]
    worker_log: list[str]
    service_metrics: str
    worker_metrics: str
    collector: Collector


def parsed_lines(log: list[str]) -> list[dict[str, Any]]:
    """The lines of a log as JSON objects."""
    return [json.loads(line) for line in log]


@contextmanager
def observe(folder: Path) -> Iterator[ObservedDay]:
    """Run the stack; returns what was observed once it has stopped."""
    with collecting() as collector, reserved_port() as port:
        with started(
            folder,
            replicas=1,
            ENGRAM_WORKER_METRICS_PORT=str(port),
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint,
            OTEL_BSP_SCHEDULE_DELAY="200",
            AWS_SECRET_ACCESS_KEY=SECRET,
        ) as stack:
            job = _use(stack)
            service_metrics = stack.client.get("/metrics").text
            # A job is counted after its result has been written, by which it was found to be over.
            wait_until(lambda: {"engram_jobs_total", "engram_job_attempts_total"} <= _counted(_metrics(port)), 60)
            worker_metrics = _metrics(port)
        # A stopped process has sent its last span and written its last line.
        yield ObservedDay(
            job,
            (folder / "service-0.log").read_text().splitlines(),
            (folder / "worker.log").read_text().splitlines(),
            service_metrics,
            worker_metrics,
            collector,
        )


def _metrics(port: int) -> str:
    return httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=60).text


def _counted(metrics: str) -> set[str]:
    """Names of metrics that counted one success; none while a job is running."""
    samples = [sample for family in text_string_to_metric_families(metrics) for sample in family.samples]
    if any(sample.name == "engram_jobs_running" and sample.value for sample in samples):
        return set()
    return {sample.name for sample in samples if "succeeded" in sample.labels.values() and sample.value == 1}


def _use(stack: Stack) -> str:
    """Make the requests; returns the id of the job."""
    client = stack.client
    stack.create("digits")
    headers = {"X-Request-ID": "teach-1", "traceparent": f"00-{TRACE}-{PARENT}-01"}
    client.headers.update(headers)
    answer = stack.submit("digits", "low", archive((0, 1)))
    for name in headers:
        del client.headers[name]
    job = stack.finish(answer)
    assert job["state"] == "succeeded", job
    wait_until(lambda: client.get("/v1/models/digits").json()["version"] == 1, 60)
    for path in ("predict", "explain"):
        asked = {"Content-Type": "image/png", "X-Request-ID": "ask-1"}
        client.post(f"/v1/models/digits/{path}", content=png(0, 100), headers=asked).raise_for_status()
    assert client.get("/v1/models/none").status_code == 404
    assert client.get("/v1/models/digits?token=hunter22").status_code == 422
    assert stack.submit("digits", "bad", b"no archive").status_code == 422
    return str(job["id"])
