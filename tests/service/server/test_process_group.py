"""Tests of a service of several processes: one answer and one account of all, also after a kill."""

from __future__ import annotations

import http.client
import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import httpx
import prometheus_client
import pytest
from prometheus_client import CollectorRegistry, Gauge, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from service.lifecycle.merged_metrics import merged
from service.server.process_group import Membership
from service.server.server import listen
from service.settings import ServiceSettings
from testing.data.digits import png
from testing.drills.load import Load
from testing.drills.process_kills import interrupted, kill_processes, members, metric, taking
from testing.processes.processes import eventually
from testing.processes.stack import Stack, started

PREDICT = "/v1/models/digits/predict"
PROCESSES = 2
CONNECTIONS = 24
CLIENTS = 8
KILLS = 2
BUSY_TICKS = 30
"""Of a processor, which a process that is asked nothing does not take."""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("group")
    secrets = folder / "secrets"
    secrets.mkdir()
    with started(folder, 1, ENGRAM_PROCESSES=str(PROCESSES), ENGRAM_SECRETS_DIR=str(secrets)) as stack:
        stack.create("digits")
        stack.learn("digits", "low", (0, 1))
        yield stack


def processor(pid: int) -> int:
    """Ticks of processor time that a process has taken."""
    return sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]))


def asked(stack: Stack, number: int = CONNECTIONS) -> list[int]:
    """The versions that answer on so many connections, one after the other."""
    found = []
    for _ in range(number):
        headers = {"Content-Type": "image/png"}
        answer = httpx.post(stack.replicas[0] + PREDICT, content=png(0, 0), headers=headers, timeout=60)
        found.append(answer.raise_for_status().json()["version"])
    return found


def counted(stack: Stack) -> int:
    """Predictions that the service says it has answered."""
    name = "engram_http_request_duration_seconds_count"
    return round(metric(stack, name, route="/v1/models/{model}/predict"))


def test_all_processes_answer_and_are_counted_together(stack: Stack) -> None:
    assert eventually(lambda: taking(stack) == PROCESSES, 60)
    before = counted(stack)
    (other,) = members(stack)
    ticks = processor(other)
    assert asked(stack, 60) == [1] * 60
    assert counted(stack) == before + 60
    assert processor(other) > ticks, "it has answered some"


def test_what_one_process_has_said_is_so_in_all(stack: Stack) -> None:
    assert eventually(lambda: taking(stack) == PROCESSES, 60)
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


def test_a_killed_process_is_replaced_and_only_what_it_was_answering_is_told_503(stack: Stack) -> None:
    """Every client stays on its connection until it is told that this one ends."""
    assert eventually(lambda: taking(stack) == PROCESSES, 60)
    before = members(stack)
    found = kill_processes(stack, "digits", KILLS, CLIENTS)
    assert found.failures == []
    assert found.told == found.counted <= KILLS * CLIENTS
    assert found.answers > CLIENTS
    assert not set(before) & set(members(stack))


@pytest.fixture
def ended() -> Iterator[ExitStack]:
    """What is closed with the test."""
    with ExitStack() as parts:
        yield parts


def test_clients_that_keep_their_connections_come_to_a_new_process_too(stack: Stack) -> None:
    assert eventually(lambda: taking(stack) == PROCESSES, 60)
    with Load(stack.replicas, "digits", png(0, 0), CLIENTS) as load:
        os.kill(members(stack)[0], signal.SIGKILL)
        assert eventually(lambda: taking(stack) == 1, 10)
        assert eventually(lambda: taking(stack) == PROCESSES, 60)
        (other,) = members(stack)
        ticks = processor(other)
        assert eventually(lambda: processor(other) > ticks + BUSY_TICKS, 30), "it answers nobody"
    assert [failure for failure in load.failures if "503" not in failure] == []


class Raw:
    """A connection on which a prediction was answered, and perhaps half of the next request sent."""

    def __init__(self, address: str, path: str | None) -> None:
        self.path = path
        self.connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=60)
        assert self.predicted() == 200
        if path is not None:
            self.connection.putrequest("POST", path)
            self.connection.putheader("Content-Type", "image/png")
            self.connection.putheader("Content-Length", "1000")
            self.connection.endheaders(b"half")

    def close(self) -> None:
        self.connection.close()

    def predicted(self) -> int:
        """The status of a whole prediction."""
        self.connection.request("POST", PREDICT, png(0, 0), {"Content-Type": "image/png"})
        answer = self.connection.getresponse()
        answer.read()
        return answer.status

    def told(self, seconds: float) -> tuple[int, str, dict[str, Any]] | None:
        """Status, type and content of what has come without the rest of the request; None if nothing comes."""
        self.connection.sock.settimeout(seconds)
        try:
            answer = self.connection.getresponse()
            return answer.status, answer.headers["Content-Type"], json.loads(answer.read())
        except TimeoutError:
            return None


def test_connections_of_a_killed_process_are_told_or_given_on(stack: Stack, ended: ExitStack) -> None:
    assert eventually(lambda: taking(stack) == PROCESSES, 60)
    before = interrupted(stack)
    paths = [PREDICT, "/v2/models/digits/infer", None] * 4
    clients = [ended.enter_context(closing(Raw(stack.replicas[0], path))) for path in paths]
    (victim,) = members(stack)
    time.sleep(0.2)  # until halves have come
    os.kill(victim, signal.SIGKILL)
    assert eventually(lambda: taking(stack) == 1, 10)
    assert [client.predicted() for client in clients if client.path is None] == [200] * 4, "whoever has them now"
    told = {path: [found for one in clients if one.path == path and (found := one.told(0.5))] for path in paths[:2]}
    ((status, kind, content),) = {(a, b, json.dumps(c)) for a, b, c in told[PREDICT]}
    assert (status, kind) == (503, "application/problem+json")
    assert (json.loads(content)["code"], json.loads(content)["status"]) == ("stopping", 503)
    ((status, kind, content),) = {(a, b, json.dumps(c)) for a, b, c in told[paths[1]]}
    assert (status, kind, set(json.loads(content))) == (503, "application/json", {"error", "code"})
    count = sum(map(len, told.values()))
    assert count < 8, "the other process answers on its own connections"
    assert interrupted(stack) - before == count


def test_a_key_is_known_to_all_processes_and_so_is_its_end(stack: Stack) -> None:
    """Nothing but the end comes after it in this stack: where there was a key, everybody needs one."""
    assert eventually(lambda: taking(stack) == PROCESSES, 60)
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
    assert eventually(lambda: len(members(stack)) == PROCESSES - 1, 60)
    (stack.store.parent / "secrets" / "engram_max_requests").write_text("many")
    (victim,) = members(stack)
    os.kill(victim, signal.SIGKILL)
    assert stack.services[0].wait(60) == os.EX_CONFIG
    said = (stack.store.parent / "service-0.log").read_text()
    assert said.splitlines()[-1] == "The service process 1's settings cannot be used."


def test_another_service_cannot_take_the_same_address() -> None:
    with listen("127.0.0.1", 0) as first, pytest.raises(OSError, match="in use"):
        listen("127.0.0.1", first.getsockname()[1])


def test_metrics_are_merged_as_they_are_meant() -> None:
    texts = []
    for number in (1, 2):
        registry = CollectorRegistry()
        counter = prometheus_client.Counter("engram_images", "Images", ("outcome",), registry=registry)
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
