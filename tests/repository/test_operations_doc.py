"""Tests of metric names, and of their use in dashboard, alerts and documentation."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families

from service.metrics import Metrics
from telemetry.logs import FIELDS
from testing.data.promql import grouping, selectors
from worker import metrics as worker

ROOT = Path(__file__).parents[2]
OPERATIONS = (ROOT / "docs/operations.md").read_text()
LABELS = {"method", "route", "status", "kind", "outcome", "model", "state", "phase", "code", "backend", "version"}
"""Labels whose values clients cannot invent: templates, states, codes and names of existing models."""
GIVEN = {"instance", "job", "le", "alertname", "alertstate"}
"""Labels that Prometheus adds."""
BY_PROMETHEUS = {"up", "ALERTS"}


def registries() -> dict[str, CollectorRegistry]:
    return {"service": Metrics().registry, "worker": worker.REGISTRY}


def families(registry: CollectorRegistry) -> list[Metric]:
    return [family for family in registry.collect() if family.name.startswith("engram_")]


def label_names(registry: CollectorRegistry, name: str) -> tuple[str, ...]:
    """Label names of a family, also before its first measurement."""
    collector = registry._names_to_collectors.get(name)
    declared = getattr(collector, "_labelnames", None)
    if declared is not None:
        return tuple(declared)
    return tuple(next(family for family in registry.collect() if family.name == name).samples[0].labels)


def exposed(registry: CollectorRegistry) -> dict[str, set[str]]:
    """Every exposed name with its labels."""
    found: dict[str, set[str]] = {}
    for family in registry.collect():
        labels = set(label_names(registry, family.name)) if family.name.startswith("engram_") else set()
        suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}.get(family.type, ("",))
        found |= {family.name + suffix: labels for suffix in suffixes}
    return found


def everything() -> dict[str, set[str]]:
    together: dict[str, set[str]] = {}
    for registry in registries().values():
        for name, labels in exposed(registry).items():
            together[name] = together.get(name, set()) | labels
    return together


@pytest.mark.parametrize("kind", ["service", "worker"])
def test_names_types_and_labels_are_as_prometheus_wants_them(kind: str) -> None:
    registry = registries()[kind]
    for family in families(registry):
        assert re.fullmatch(r"engram_[a-z]+(_[a-z]+)*", family.name), family.name
        assert family.documentation
        assert not family.documentation.endswith(".")
        assert not re.search(r"(_|^)(ms|millis\w*|minutes|hours|kb|mb|percent|count|sum|bucket)(_|$)", family.name)
        assert set(label_names(registry, family.name)) <= LABELS, family.name
        if family.type == "histogram":
            assert family.name.endswith(("_seconds", "_bytes", "_images", "_engrams")), family.name
        if family.type == "gauge" and "_total" in family.name:
            pytest.fail(f"{family.name} is no counter")


def test_what_both_have_they_have_alike() -> None:
    service, own = ({family.name: family for family in families(one)} for one in registries().values())
    for name in service.keys() & own.keys():
        assert (service[name].type, service[name].documentation) == (own[name].type, own[name].documentation)


def row(registry: CollectorRegistry, family: Metric) -> str:
    name = family.name + ("_total" if family.type == "counter" else "")
    labels = ", ".join(f"`{label}`" for label in label_names(registry, family.name))
    return f"| `{name}` | {family.type} | {labels} | {family.documentation} |"


def test_every_metric_and_field_is_documented_as_it_is() -> None:
    for kind, registry in registries().items():
        section = OPERATIONS.split(f"Of a {kind}:")[1].split("\n\n")[1]
        expected = [row(registry, family) for family in families(registry)]
        assert sorted(section.splitlines()[2:]) == sorted(expected)
    fields = OPERATIONS.split("| field | what it is |\n")[1].split("\n\n")[0].splitlines()[1:]
    assert fields == [f"| `{name}` | {what} |" for name, what in FIELDS.items()]


def expressions() -> dict[str, str]:
    """Every query of the dashboard and of the alerts, by its place."""
    found: dict[str, str] = {}
    dashboard = json.loads((ROOT / "deploy/grafana/engram.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            found[f"{panel['title']} {target['refId']}"] = target["expr"]
    for rule in alerts():
        found[rule["alert"]] = rule["expr"]
    return found


def alerts() -> list[dict[str, Any]]:
    document = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text())
    return [rule for group in document["groups"] for rule in group["rules"]]


@pytest.mark.parametrize("where", sorted(expressions()))
def test_every_query_asks_for_what_there_is(where: str) -> None:
    text = expressions()[where]
    there = everything()
    found = selectors(text)
    assert found
    for selector in found:
        if selector.name in BY_PROMETHEUS:
            continue
        assert selector.name in there, selector.name
        labels = {name for name, _ in selector.labels} - GIVEN
        assert labels <= there[selector.name], (selector.name, labels)
        # Only counters have a rate, and a counter's own value has no meaning.
        rated = re.search(rf"(rate|increase)\({re.escape(selector.name)}\b", text) is not None
        assert rated == selector.name.endswith(("_total", "_bucket", "_sum", "_count")), text
    known = set().union(*(there.get(selector.name, set()) for selector in found)) | GIVEN
    assert grouping(text) <= known


def test_a_query_for_what_there_is_not_would_be_found() -> None:
    assert [one.name for one in selectors('sum(rate(a_total{x="1"}[5m])) / (b - on () c) > 2')] == ["a_total", "b", "c"]
    assert [one.name for one in selectors("max_over_time(deriv(d[5m])[1h:1m]) and -e")] == ["d", "e"]
    assert selectors('a{x=~"1|2"}')[0].labels == (("x", "1|2"),)
    with pytest.raises(ValueError, match=r".+"):
        selectors("sum(rate(a[5m])")


def test_alerts_say_what_is_wrong_and_where_the_runbook_is() -> None:
    names = [rule["alert"] for rule in alerts()]
    assert len(set(names)) == len(names)
    for rule in alerts():
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"].keys() == {"summary", "description", "runbook"}
        assert rule["annotations"]["runbook"] == f"docs/operations.md#{rule['alert'].lower()}"
        assert re.fullmatch(r"\d+[smhd]", rule.get("for", "1m"))
    headings = re.findall(r"^### (\w+)$", OPERATIONS, re.MULTILINE)
    assert headings == names


def test_routes_that_queries_name_are_there() -> None:
    from service.app import create_app

    paths = set(create_app().openapi()["paths"])
    named = {
        value for text in expressions().values() for one in selectors(text) for k, value in one.labels if k == "route"
    }
    assert named
    assert named <= paths


def test_the_dashboard_is_whole() -> None:
    dashboard = json.loads((ROOT / "deploy/grafana/engram.json").read_text())
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    spots = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}
    assert len(spots) == len(panels)
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in panels)
    assert {panel["title"] for panel in panels if panel["type"] == "row"} >= {"Requests", "Learning", "Models"}


def test_what_prometheus_scrapes_is_what_compose_offers() -> None:
    scraped = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    jobs = {one["job_name"]: one["dns_sd_configs"][0] for one in scraped["scrape_configs"]}
    assert jobs["engram-service"]["names"] == ["service"]
    assert str(jobs["engram-service"]["port"]) in compose["service"]["command"]
    for name in jobs["engram-worker"]["names"]:
        environment = compose[name]["environment"]
        assert environment["ENGRAM_WORKER_METRICS_PORT"] == str(jobs["engram-worker"]["port"])
        assert environment["ENGRAM_WORKER_METRICS_HOST"] == "0.0.0.0"
    assert scraped["rule_files"] == ["alerts.yml"]
    for one in ("prometheus", "grafana"):
        assert all((ROOT / mount.split(":")[0]).exists() for mount in compose[one]["volumes"] if mount.startswith("."))


@pytest.mark.parametrize("kind", ["service", "worker"])
def test_the_text_can_be_read_back(kind: str) -> None:
    from prometheus_client import generate_latest

    text = generate_latest(registries()[kind]).decode()
    assert {family.name for family in text_string_to_metric_families(text)} >= {"engram_build_info"}
