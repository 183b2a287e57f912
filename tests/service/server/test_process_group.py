"""Tests of a service of several processes: one answer and one account of all, also after a kill."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from service.lifecycle.merged_metrics import merged
from service.server.process_group import Membership
from service.server.server import listen, listen_for
from service.settings import ServiceSettings
from testing.data.digits import png
from testing.processes.processes import children, eventually, listeners
from testing.processes.stack import Stack, started

PREDICT = "/v1/models/digits/predict"
PROCESSES = 2
CONNECTIONS = 24


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("group")
    secrets = folder / "secrets"
    secrets.mkdir()
    with started(folder, 1, ENGRAM_PROCESSES=str(PROCESSES), ENGRAM_SECRETS_DIR=str(secrets)) as stack:
        stack.create("digits")
        stack.learn("digits", "low", (0, 1))
        yield stack


def members(stack: Stack) -> list[int]:
    """The further processes."""
    return [pid for pid, line in children(stack.services[0].pid).items() if "--member" in line]


def listening(stack: Stack) -> int:
    """How many processes listen on the address."""
    return listeners(int(stack.replicas[0].rpartition(":")[2]))


def processor(pid: int) -> int:
    """Ticks of processor time that a process has taken."""
    return sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]))


def asked(stack: Stack, number: int = CONNECTIONS) -> list[int]:
    """The versions that answer on so many connections, one after the other."""
    found = []
    for _ in range(number):
        answer = httpx.post(stack.replicas[0] + PREDICT, content=png(0, 0), headers={"Content-Type": "image/png"})
        found.append(answer.raise_for_status().json()["version"])
    return found


def counted(stack: Stack) -> int:
    """Predictions that the service says it has answered."""
    found = 0.0
    for family in text_string_to_metric_families(stack.client.get("/metrics").text):
        for sample in family.samples:
            if sample.name.endswith("request_duration_seconds_count") and sample.labels["route"].endswith("/predict"):
                found += sample.value
    return round(found)


def test_all_processes_answer_and_are_counted_together(stack: Stack) -> None:
    assert eventually(lambda: listening(stack) == PROCESSES, 60)
    before = counted(stack)
    (other,) = members(stack)
    ticks = processor(other)
    assert asked(stack, 60) == [1] * 60
    assert counted(stack) == before + 60
    assert processor(other) > ticks, "it has answered some"


def test_what_one_process_has_said_is_so_in_all(stack: Stack) -> None:
    assert eventually(lambda: listening(stack) == PROCESSES, 60)
    version = stack.learn("digits", "high", (2, 3))["version"]
    assert asked(stack) == [version] * CONNECTIONS
    for target in (1, version, 1):
        version += 1
        answer = httpx.post(f"{stack.replicas[0]}/v1/models/digits/versions/{target}/activate")
        assert answer.raise_for_status().json()["version"] == version
        assert asked(stack) == [version] * CONNECTIONS
    stack.create("short")
    assert httpx.delete(f"{stack.replicas[0]}/v1/models/short").status_code == 204
    gone = [httpx.get(f"{stack.replicas[0]}/v1/models/short").status_code for _ in range(CONNECTIONS)]
    assert gone == [404] * CONNECTIONS


def test_a_killed_process_is_replaced_and_the_others_answer_meanwhile(stack: Stack) -> None:
    assert eventually(lambda: listening(stack) == PROCESSES, 60)
    (victim,) = members(stack)
    os.kill(victim, signal.SIGKILL)
    assert eventually(lambda: listening(stack) == 1, 10)
    assert len(asked(stack)) == CONNECTIONS
    assert eventually(lambda: listening(stack) == PROCESSES, 60)
    assert victim not in members(stack)
    assert set(asked(stack)) == set(asked(stack))


def test_a_key_is_known_to_all_processes_and_so_is_its_end(stack: Stack) -> None:
    """Nothing but the end comes after it in this stack: where there was a key, everybody needs one."""
    assert eventually(lambda: listening(stack) == PROCESSES, 60)
    address = stack.replicas[0]
    first, second = ({"name": name, "scope": "admin"} for name in ("first", "second"))
    kept = httpx.post(f"{address}/v1/keys", json=first).raise_for_status().json()
    ours = {"Authorization": f"Bearer {kept['token']}"}
    ended = httpx.post(f"{address}/v1/keys", json=second, headers=ours).raise_for_status().json()
    theirs = {"Authorization": f"Bearer {ended['token']}"}
    assert {httpx.get(f"{address}/v1/models", headers=theirs).status_code for _ in range(CONNECTIONS)} == {200}
    httpx.delete(f"{address}/v1/keys/{ended['id']}", headers=ours).raise_for_status()
    assert {httpx.get(f"{address}/v1/models", headers=theirs).status_code for _ in range(CONNECTIONS)} == {401}


def test_a_process_that_cannot_run_with_its_settings_ends_the_service_with_a_sentence(stack: Stack) -> None:
    """The last one of this stack. Settings may also come from files, which may change while the service runs."""
    assert eventually(lambda: listening(stack) == PROCESSES, 60)
    (stack.store.parent / "secrets" / "engram_max_requests").write_text("many")
    (victim,) = members(stack)
    os.kill(victim, signal.SIGKILL)
    assert stack.services[0].wait(60) == os.EX_CONFIG
    said = (stack.store.parent / "service-0.log").read_text()
    assert said.splitlines()[-1] == "The service process 1's settings cannot be used."


def test_another_service_cannot_take_the_same_address() -> None:
    settings = ServiceSettings(redis_url="redis://localhost:1", processes=2)
    with listen_for(settings, "127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        listen("127.0.0.1", port, shared=True).close()  # as a further process of the same service
        with pytest.raises(OSError, match="in use"):
            listen_for(settings, "127.0.0.1", port)
        with pytest.raises(OSError, match="in use"):
            listen("127.0.0.1", port)


def test_metrics_are_merged_as_they_are_meant() -> None:
    texts = []
    for number in (1, 2):
        registry = CollectorRegistry()
        counter = Counter("engram_images", "Images", ("outcome",), registry=registry)
        counter.labels("ok").inc(number)
        counter.labels(f"of {number}").inc(5)
        Gauge("engram_queue_images", "Waiting", registry=registry).set(number)
        Gauge("engram_live_models", "Models", registry=registry).set(number)
        Gauge("engram_open_jobs", "Jobs", registry=registry).set(number)
        Histogram("engram_seconds", "Time", registry=registry, buckets=(1, 2)).observe(number)
        texts.append(generate_latest(registry))
    families = text_string_to_metric_families(merged(texts).decode())
    found = {(s.name, *sorted(s.labels.values())): s.value for family in families for s in family.samples}
    assert found["engram_images_total", "ok"] == 3
    assert found["engram_images_total", "of 1"] == found["engram_images_total", "of 2"] == 5
    assert (found["engram_queue_images",], found["engram_live_models",], found["engram_open_jobs",]) == (3, 1, 2)
    assert [found["engram_seconds_bucket", le] for le in ("1.0", "2.0", "+Inf")] == [1, 2, 2]
    assert (found["engram_seconds_count",], found["engram_seconds_sum",]) == (2, 3)


def test_bounds_are_divided_among_processes(tmp_path: Path) -> None:
    settings = ServiceSettings(redis_url="redis://localhost:1", queue_images=1024, max_uploads=3)
    membership = Membership.parse(str(Membership(tmp_path, 1, 2)))
    assert membership == Membership(tmp_path, 1, 2)
    shared = membership.share(settings)
    assert (shared.queue_images, shared.max_uploads, shared.older_versions) == (512, 2, settings.older_versions)
    assert Membership(tmp_path, 0, 1).share(settings) == settings
