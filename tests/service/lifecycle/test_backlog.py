"""Tests of the gauges of open jobs and live models."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from service.settings import ServiceSettings
from testing.data.models import submit
from testing.servers.redis import RedisServer
from testing.servers.service import Service, running, wait_until


def figures(service: Service) -> dict[str, float]:
    text = service.client.get("/metrics").text
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {"".join([s.name, *s.labels.values()]): s.value for s in samples}


def test_open_jobs_are_told_until_they_cannot_be(learned_settings: ServiceSettings, own_redis: RedisServer) -> None:
    settings = learned_settings.model_copy(update={"redis_url": own_redis.url, "backlog_seconds": 0.1})
    with running(settings) as service:
        wait_until(lambda: figures(service).get("engram_open_jobsqueued") == 0)
        submit(service.vault, "high", (8, 9))
        wait_until(lambda: figures(service)["engram_open_jobsqueued"] == 1)
        assert 0 < figures(service)["engram_oldest_waiting_job_seconds"] < 600
        lease = service.vault.leases.acquire("digits", "a worker", service.vault.jobs.open_jobs()[0].id)
        assert lease is not None
        wait_until(lambda: figures(service)["engram_open_jobsrunning"] == 1)
        before = figures(service)["engram_backend_failures_totalredisunavailable"]
        own_redis.stop()
        wait_until(lambda: figures(service)["engram_open_jobsqueued"] != figures(service)["engram_open_jobsqueued"])
        assert figures(service)["engram_backend_failures_totalredisunavailable"] > before
        own_redis.start()
        wait_until(lambda: figures(service)["engram_open_jobsqueued"] == 1)


def test_what_answers_is_told_by_model(service: Service) -> None:
    wait_until(lambda: "engram_swaps_totaldone" in figures(service))  # the last of all that is shown
    found = figures(service)
    assert (found["engram_live_versiondigits"], found["engram_live_tasksdigits"]) == (2, 2)
    capacity = service.client.get("/v1/models/digits").json()["capacity"]
    assert found["engram_owned_unitsdigits"] == sum(sum(layer["owned"].values()) for layer in capacity) > 0
    assert 0 < found["engram_capacity_used_ratiodigits"] < 1
    assert (found["engram_ready"], found["engram_queue_limit_images"]) == (1, 1024)
    service.client.delete("/v1/models/digits").raise_for_status()
    wait_until(lambda: not any(name.endswith("digits") for name in figures(service)))
    assert figures(service)["engram_ready"] == 0
