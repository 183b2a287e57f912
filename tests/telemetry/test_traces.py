"""Tests of tracing."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from telemetry import traces
from testing.servers.otel_collector import collecting

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

SCRIPT = """
from telemetry import traces
assert traces.configure("engram-test")
with traces.span("outer", attributes={"url.query": "top_k=1&X-Amz-Signature=hunter22"}):
    traces.past("inner", 1, 2)
try:
    with traces.span("failing"):
        raise ValueError("redis://:hunter22@host")
except ValueError:
    pass
traces.shutdown()
"""


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, False),
        ({ENDPOINT: ""}, False),
        ({ENDPOINT: "http://collector:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318/v1/traces"}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_TRACES_EXPORTER": "none", ENDPOINT: "http://collector:4318"}, False),
        ({"OTEL_SDK_DISABLED": "true", ENDPOINT: "http://collector:4318"}, False),
    ],
)
def test_the_standard_variables_decide(environment: dict[str, str], expected: bool) -> None:
    assert traces.wanted(environment) is expected


def test_nothing_is_imported_or_recorded_unless_it_is_asked_for() -> None:
    code = (
        "import sys; from telemetry import traces; assert not traces.configure('x')\n"
        "with traces.span('one') as span: assert not span.is_recording() and traces.carrier() == {}\n"
        "traces.shutdown(); assert not any(name.startswith('opentelemetry.sdk') for name in sys.modules)"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=240)


def test_spans_arrive_without_secrets() -> None:
    script = SCRIPT.replace("traces.shutdown()", "traces.shutdown(60)")
    with collecting() as collector:
        environment = os.environ | {ENDPOINT: collector.endpoint, "OTEL_RESOURCE_ATTRIBUTES": "service.name=mine"}
        subprocess.run([sys.executable, "-c", script], env=environment, check=True, timeout=240)
    spans = {span.name: span for span in collector.spans}
    assert spans["inner"].parent == spans["outer"].id
    assert spans["outer"].attributes["url.query"] == "top_k=1&X-Amz-Signature=***"
    assert (spans["failing"].failed, spans["failing"].attributes) == (True, {"error.type": "ValueError"})
    assert {span.service for span in collector.spans} == {"mine"}


@pytest.mark.parametrize("listening", [True, False])
def test_a_collector_that_does_not_answer_keeps_nobody_from_ending(listening: bool) -> None:
    """By itself the SDK would try to export the last spans for half a minute."""
    code = f"""import threading
{SCRIPT.replace("traces.shutdown()", "traces.shutdown(0.5)")}
print([thread.name for thread in threading.enumerate() if thread.name == "last-spans"], flush=True)
"""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        if listening:
            silent.listen(5)
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        environment = os.environ | {ENDPOINT: endpoint, "OTEL_EXPORTER_OTLP_TIMEOUT": "600"}
        command = [sys.executable, "-c", code]
        with subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "['last-spans']\n", "it was waited for"
            assert process.wait(20) == 0


@pytest.mark.parametrize("headers", [{}, {"traceparent": ""}, {"traceparent": "00-0-0-0"}, {"traceparent": 5}])
def test_a_record_without_a_trace_has_no_link(headers: dict[str, object]) -> None:
    assert traces.link_to(headers) is None


def test_a_record_leads_to_the_span_that_wrote_it() -> None:
    link = traces.link_to({"request_id": "a", "traceparent": PARENT})
    assert link is not None
    assert f"{link.context.trace_id:032x}-{link.context.span_id:016x}" == PARENT[3:-3]
