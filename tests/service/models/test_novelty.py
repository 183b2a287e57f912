"""Tests of novelty monitors over HTTP."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.api.novelty import CusumResponse
from service.models import versions
from service.settings import ServiceSettings
from testing.data.digits import SMALL_MODEL, png
from testing.data.models import MODEL, learn
from testing.servers.redis import RedisServer
from testing.servers.service import Service, running, wait_until

NOVELTY = f"/v1/models/{MODEL}/novelty"
KNOWN = (0, 1, 2, 3)


def ask(service: Service, digits: tuple[int, ...], count: int, **params: Any) -> list[dict[str, Any]]:
    """Predictions for `count` images that were not learned, a digit after another."""
    indices = itertools.cycle(itertools.product(range(60, 170), digits))
    parts = [("image", ("x", png(digit, index), "image/png")) for index, digit in itertools.islice(indices, count)]
    response = service.client.post(f"/v1/models/{MODEL}/predict", files=parts, params=params)
    response.raise_for_status()
    predictions: list[dict[str, Any]] = response.json()["predictions"]
    return predictions


def novelty(service: Service) -> dict[str, Any]:
    response = service.client.get(NOVELTY)
    response.raise_for_status()
    answer: dict[str, Any] = response.json()
    return answer


def counted(service: Service) -> tuple[int, int]:
    """The images of the history, and those of them that were unknown."""
    history = novelty(service)["history"]
    assert history["seconds"] == 300
    moments = [one["began_at"] for one in history["spans"]]
    assert moments == sorted(set(moments))
    return sum(one["samples"] for one in history["spans"]), sum(one["unknown"] for one in history["spans"])


def metrics(service: Service) -> dict[str, float]:
    text = service.client.get("/metrics").text
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {sample.name: sample.value for sample in samples if sample.labels.get("model") == MODEL}


@pytest.fixture
def two(learned_settings: ServiceSettings) -> Iterator[tuple[Service, Service]]:
    """Two replicas over one store and one Redis."""
    with running(learned_settings) as first, running(learned_settings) as second:
        yield first, second


def test_a_class_that_nobody_taught_is_noticed_until_it_is_taught(service: Service) -> None:
    fresh = novelty(service)
    assert {key: fresh[key] for key in ("model", "version", "state", "samples", "unknown", "unknown_share")} == {
        "model": MODEL,
        "version": 2,
        "state": "known",
        "samples": 0,
        "unknown": 0,
        "unknown_share": 0.0,
    }
    unknown = 0
    for _ in range(5):
        unknown += sum(not one["known"] for one in ask(service, KNOWN, 200))
        assert novelty(service)["state"] == "known"
    before = novelty(service)
    assert (before["samples"], before["unknown"]) == (1000, unknown)
    assert before["unknown_share"] == pytest.approx(unknown / 1000)
    assert before["welch"]["reference_samples"] == 512
    assert before["welch"]["p_value"] > 0.003
    assert metrics(service)["engram_novelty_state"] == 0

    mixed = ask(service, (4, 6, *KNOWN[:2]), 256)  # half of them of the new classes
    strange = sum(not one["known"] for place, one in enumerate(mixed) if place % 4 < 2) / 128
    noticed = novelty(service)
    assert noticed["state"] == "new task suspected"
    assert noticed["cusum"]["raised"]
    assert noticed["since"] > before["since"]
    assert [one["state"] for one in noticed["replicas"]] == ["new task suspected"]
    found = metrics(service)
    assert found["engram_novelty_state"] == 2
    assert found["engram_unknown_images_total"] == noticed["unknown"] > unknown

    learn(service.vault, "high", (4, 6))
    wait_until(lambda: novelty(service)["version"] == 3)
    taught = novelty(service)
    assert (taught["state"], taught["samples"]) == ("known", 0)
    assert taught["since"] > noticed["since"]
    wait_until(lambda: metrics(service)["engram_novelty_state"] == 0)
    assert sum(not one["known"] for one in ask(service, (4, 6), 240)) / 240 < strange / 2
    assert novelty(service)["samples"] == 240


def test_only_answers_of_the_live_version_that_were_not_told_the_task_count(service: Service) -> None:
    ask(service, KNOWN, 8, task="low")
    ask(service, KNOWN, 8, version=1)
    assert novelty(service)["samples"] == 0
    ask(service, KNOWN, 8)
    ask(service, KNOWN, 8, version=2)
    assert novelty(service)["samples"] == 16


def test_a_model_made_anew_begins_anew(service: Service) -> None:
    ask(service, (4, 6), 60)
    assert novelty(service)["state"] == "new task suspected"
    service.client.delete(f"/v1/models/{MODEL}").raise_for_status()
    assert service.client.get(NOVELTY).json()["code"] == "unknown_model"
    wait_until(lambda: not metrics(service))
    service.client.post("/v1/models", json={"name": MODEL, **SMALL_MODEL}).raise_for_status()
    found = novelty(service)
    assert (found["version"], found["state"], found["samples"]) == (0, "known", 0)


def test_the_worst_state_of_the_replicas_is_the_answer_of_all(two: tuple[Service, Service]) -> None:
    quiet, alarmed = two
    ask(quiet, KNOWN, 40)
    ask(alarmed, (4, 6), 60)
    wait_until(lambda: novelty(quiet)["state"] == "new task suspected")
    wait_until(lambda: novelty(quiet)["samples"] == novelty(alarmed)["samples"] == 100)
    found = novelty(quiet)
    assert sorted(one["state"] for one in found["replicas"]) == ["known", "new task suspected"]
    assert sorted(one["samples"] for one in found["replicas"]) == [40, 60]
    assert found["unknown"] == sum(one["unknown"] for one in found["replicas"])
    assert found["cusum"]["raised"]
    assert found["since"] == max(one["since"] for one in found["replicas"])
    assert metrics(quiet)["engram_novelty_state"] == 0
    assert metrics(alarmed)["engram_novelty_state"] == 2
    told = found["unknown"]

    # A version that only one of them has met: what the other says of the one before is not about this one.
    versions.raise_budget(quiet.vault, MODEL, 20.0)
    wait_until(lambda: novelty(quiet)["version"] == 3)
    found = novelty(quiet)
    assert (found["state"], found["samples"]) == ("known", 0)
    wait_until(lambda: len(novelty(quiet)["replicas"]) == 2)
    # The history is that of all replicas and versions.
    wait_until(lambda: counted(quiet) == counted(alarmed) == (100, told))


def test_a_replica_that_stops_is_no_longer_listed(learned_settings: ServiceSettings) -> None:
    with running(learned_settings) as staying:
        with running(learned_settings) as leaving:
            ask(leaving, (4, 6), 60)
            wait_until(lambda: novelty(staying)["state"] == "new task suspected")
        found = novelty(staying)
        assert (found["state"], len(found["replicas"])) == ("known", 1)


def test_without_redis_a_replica_answers_for_itself(learned_settings: ServiceSettings, own_redis: RedisServer) -> None:
    with running(learned_settings.model_copy(update={"redis_url": own_redis.url})) as service:
        ask(service, (4, 6), 30)
        own_redis.stop()
        ask(service, (4, 6), 30)
        found = novelty(service)
        assert (found["state"], found["samples"]) == ("new task suspected", 60)
        (only,) = found["replicas"]
        assert (only["state"], only["samples"]) == ("new task suspected", 60)
        assert counted(service) == (60, found["unknown"])
        own_redis.start()
        wait_until(lambda: any(":novelty:" in key for key in service.vault.redis.keys("*")))


def test_what_a_replica_of_an_earlier_release_tells_can_be_shown() -> None:
    earlier = {"value": 3.5, "threshold": 12.0, "usual": 0.1, "raised": False}
    assert CusumResponse.model_validate(earlier).level == 0.01


def test_the_interface_describes_it(reader: Service) -> None:
    described = reader.client.get("/openapi.json").json()
    schema = described["paths"]["/v1/models/{model}/novelty"]["get"]["responses"]["200"]["content"]["application/json"]
    assert schema["schema"]["$ref"].endswith("/NoveltyResponse")
    fields = described["components"]["schemas"]["NoveltyResponse"]["properties"]
    assert fields["state"]["enum"] == ["known", "drift", "new task suspected"]
    assert set(fields) == set(reader.client.get(NOVELTY).json())
