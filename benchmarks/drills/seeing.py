"""Processor time that observability costs a request: log lines, metrics and spans.

    python -m benchmarks seeing --out benchmarks/results/drill_seeing.jsonl

Network and model are left out. Each combination runs in a process of its own, by turns, several times. The figure is
the processor time of all threads in the cheapest round, since other load on the machine can only add to it.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from contextlib import ExitStack

from benchmarks.drills.record import parser, record
from testing.servers.otel_collector import collecting

COMBINATIONS = ("nothing", "metrics", "metrics and lines", "metrics, lines and spans")


def main() -> None:
    options = parser("seeing", __doc__.splitlines()[0])
    options.add_argument("--requests", type=int, default=1500, help="of one round")
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument(
        "--way", choices=COMBINATIONS, help="measure one way in this process, and print its microseconds"
    )
    chosen = options.parse_args()
    if chosen.way:
        print(asyncio.run(_measure(chosen.way, chosen.requests)))
        return
    best = dict.fromkeys(COMBINATIONS, float("inf"))
    with collecting() as collector:
        for _ in range(chosen.rounds):
            for way in COMBINATIONS:
                best[way] = min(best[way], _run(way, chosen.requests, collector.endpoint))
        spans = len(collector.spans)
    assert spans > 0, "spans were sent and none arrived"
    figures = {f"processor microseconds of a request with {way}": round(best[way], 1) for way in COMBINATIONS}
    record("seeing", {"requests": chosen.requests, "rounds": chosen.rounds, **figures}, chosen.out)


def _run(way: str, requests: int, endpoint: str) -> float:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    if way == COMBINATIONS[3]:
        environment |= {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_BSP_MAX_QUEUE_SIZE": str(2 * requests)}
    command = [sys.executable, "-m", "benchmarks", "seeing", "--way", way, "--requests", str(requests)]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return float(done.stdout)


async def _measure(way: str, requests: int) -> float:
    """Mean processor time in microseconds of one request to an empty app."""
    from fastapi import FastAPI
    from starlette.types import Message, Scope

    from service.metrics import Metrics
    from service.middleware.entrance import Entrance
    from service.settings import ServiceSettings
    from telemetry import logs, traces

    app = FastAPI(telemetry={"operation_spans": False, "metrics": False, "logs": False})

    @app.post("/v1/models/{model}/predict")
    async def predict(model: str) -> dict[str, str]:
        return {"model": model}

    if way != COMBINATIONS[0]:
        app.add_middleware(Entrance, settings=ServiceSettings(), metrics=Metrics())
    traces.configure("engram-drill")
    scope: Scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/v1/models/digits/predict",
        "raw_path": b"/v1/models/digits/predict",
        "query_string": b"top_k=3",
        "headers": [(b"host", b"localhost"), (b"user-agent", b"drill")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8000),
    }

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        pass

    with ExitStack() as files:
        nowhere = files.enter_context(open(os.devnull, "w"))
        logs.configure("INFO" if way in COMBINATIONS[2:] else "ERROR", "json", nowhere)
        for count in (requests // 10, requests):  # the first round is a warm-up
            began = time.process_time()
            for _ in range(count):
                await app({**scope, "state": {}}, receive, send)
            taken = time.process_time() - began
        traces.shutdown(30)
    return taken / requests * 1e6
