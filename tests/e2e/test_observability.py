"""Tests of logs, spans and metrics of real processes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from telemetry.logs import FIELDS
from testing.data.promql import selectors
from testing.drills.observed_day import PARENT, SECRET, TRACE, ObservedDay, observe, parsed_lines
from testing.servers.otel_collector import Span
from tests.repository.test_operations_doc import BY_PROMETHEUS, expressions


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObservedDay]:
    with observe(tmp_path_factory.mktemp("day")) as day:
        yield day


def test_every_line_is_json_of_known_fields_and_holds_no_secret(day: ObservedDay) -> None:
    for log in (day.service_log, day.worker_log):
        written = parsed_lines(log)
        assert written
        for line in written:
            assert set(line) <= set(FIELDS), line
            assert {"timestamp", "level", "logger", "message"} <= set(line)
        assert not any(secret in text for text in log for secret in (SECRET, "hunter22"))


def test_one_request_can_be_followed_through_both_logs(day: ObservedDay) -> None:
    asked = [line for line in parsed_lines(day.service_log) if line.get("request_id") == "teach-1"]
    assert {line.get("job_id") for line in asked} == {day.job}
    (access,) = [line for line in asked if line["logger"] == "engram.service.requests"]
    assert (access["method"], access["route"], access["status"]) == ("POST", "/v1/models/{model}/tasks", 202)
    worked = [line for line in parsed_lines(day.worker_log) if line.get("job_id") == day.job]
    assert len(worked) >= 2
    for line in worked:
        assert (line["request_id"], line["model"], line["task"]) == ("teach-1", "digits", "low")
    assert any(line.get("attempt") == 1 and line.get("outcome") == "succeeded" for line in worked)
    (answered,) = [line for line in parsed_lines(day.service_log) if line.get("route", "").endswith("/predict")]
    assert (answered["request_id"], answered["model"], answered["version"]) == ("ask-1", "digits", 1)


def only(spans: list[Span]) -> Span:
    assert len(spans) == 1, spans
    return spans[0]


def test_a_trace_goes_from_the_client_to_the_job(day: ObservedDay) -> None:
    spans = day.collector
    server = only([one for one in spans.named("POST /v1/models/{model}/tasks") if one.trace == TRACE])
    assert (server.service, server.kind, server.parent) == ("engram-service", 2, PARENT)
    assert server.attributes["http.route"] == "/v1/models/{model}/tasks"
    assert server.attributes["http.response.status_code"] == 202
    assert server.attributes["engram.request.id"] == "teach-1"
    submit = only(spans.below(server))
    assert (submit.name, submit.kind, submit.attributes["engram.job.id"]) == ("job submit", 4, day.job)
    attempt = only(spans.named("job attempt"))
    assert (attempt.service, attempt.kind, attempt.parent) == ("engram-worker", 5, "")
    assert attempt.links == ((TRACE, submit.id),)
    assert attempt.attributes["engram.job.id"] == day.job
    assert attempt.attributes["engram.job.outcome"] == "succeeded"
    phases = spans.below(attempt)
    names = [span.name for span in phases]
    assert names[0] == "loading"
    assert names[-2:] == ["verifying", "publishing"]
    assert {"training", "recognising"} <= set(names)
    for before, after in itertools.pairwise(phases):
        assert before.end <= after.start


def test_a_prediction_shows_where_its_time_went(day: ObservedDay) -> None:
    spans = day.collector
    server = only(spans.named("POST /v1/models/{model}/predict"))
    children = spans.below(server)
    assert [span.name for span in children] == ["decode", "queue", "infer"]
    assert all(server.start <= span.start <= span.end <= server.end for span in children)
    assert children[2].attributes["engram.batch.images"] == 1
    assert "hunter22" not in str(spans.spans)
    explained = only(spans.named("POST /v1/models/{model}/explain"))
    assert [span.name for span in spans.below(explained)] == ["decode", "explain"]
    assert not any(span.failed for span in spans.spans)


def test_probes_have_no_spans(day: ObservedDay) -> None:
    assert not [span for span in day.collector.spans if span.name.endswith(("/metrics", "/readyz", "/livez"))]


def test_every_query_of_dashboard_and_alerts_finds_its_metric(day: ObservedDay) -> None:
    there = set(BY_PROMETHEUS)
    for text in (day.service_metrics, day.worker_metrics):
        for family in text_string_to_metric_families(text):
            suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}.get(family.type, ("",))
            there |= {family.name + suffix for suffix in suffixes}
    asked = {selector.name for text in expressions().values() for selector in selectors(text)}
    assert asked <= there


def test_a_worker_tells_what_its_jobs_took_and_taught(day: ObservedDay) -> None:
    families = text_string_to_metric_families(day.worker_metrics)
    found = {(s.name, *sorted(s.labels.values())): s.value for family in families for s in family.samples}
    assert found["engram_jobs_total", "succeeded"] == found["engram_job_attempts_total", "succeeded"] == 1
    assert found["engram_jobs_total", "failed"] == found["engram_jobs_running",] == 0
    assert found["engram_job_duration_seconds_count", "succeeded"] == found["engram_job_wait_seconds_count",] == 1
    assert found["engram_job_phase_duration_seconds_count", "training"] == 1
    assert 0 <= found["engram_learned_accuracy_ratio", "digits"] <= 1
    assert 0 <= found["engram_learned_recognised_ratio", "digits"] <= 1
    assert found["engram_backend_failures_total", "redis", "unavailable"] == 0
