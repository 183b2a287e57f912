"""Spans are sent when the standard variables say so, and are no burden when they do not."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from tests.promises.collector import collecting
from vault import traces

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

SCRIPT = """
from vault import traces
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
        "import sys; from vault import traces; assert not traces.configure('x')\n"
        "with traces.span('one') as span: assert not span.is_recording() and traces.carrier() == {}\n"
        "traces.shutdown(); assert not any(name.startswith('opentelemetry.sdk') for name in sys.modules)"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=60)


def test_spans_arrive_without_secrets() -> None:
    with collecting() as collector:
        environment = os.environ | {ENDPOINT: collector.endpoint, "OTEL_RESOURCE_ATTRIBUTES": "service.name=mine"}
        subprocess.run([sys.executable, "-c", SCRIPT], env=environment, check=True, timeout=60)
    spans = {span.name: span for span in collector.spans}
    assert spans["inner"].parent == spans["outer"].id
    assert spans["outer"].attributes["url.query"] == "top_k=1&X-Amz-Signature=***"
    assert (spans["failing"].failed, spans["failing"].attributes) == (True, {"error.type": "ValueError"})
    assert {span.service for span in collector.spans} == {"mine"}


def test_a_collector_that_is_gone_keeps_nobody_from_ending() -> None:
    code = f"import time\n{SCRIPT.replace('traces.shutdown()', 'began = time.monotonic(); traces.shutdown(0.5)')}\n"
    code += "assert time.monotonic() - began < 10"
    environment = os.environ | {ENDPOINT: "http://127.0.0.1:9"}
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=60, stderr=subprocess.DEVNULL)
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("headers", [{}, {"traceparent": ""}, {"traceparent": "00-0-0-0"}, {"traceparent": 5}])
def test_a_record_without_a_trace_has_no_link(headers: dict[str, object]) -> None:
    assert traces.link_to(headers) is None


def test_a_record_leads_to_the_span_that_wrote_it() -> None:
    link = traces.link_to({"request_id": "a", "traceparent": PARENT})
    assert link is not None
    assert f"{link.context.trace_id:032x}-{link.context.span_id:016x}" == PARENT[3:-3]
