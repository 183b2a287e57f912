"""Tests of rate limits and quotas, over replicas, in headers and without Redis."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from starlette.requests import Request

from service.auth.quotas import Counters, Quotas
from service.errors.exceptions import QuotaExceeded
from service.middleware.response_headers import LimitUse, remaining
from service.settings import ServiceSettings
from testing.data.digits import QUICK, archive, png
from testing.data.models import MODEL
from testing.data.tokens import bearer, token
from testing.servers.redis import RedisServer
from testing.servers.service import PATIENCE, Service, running
from vault.keys import KeyLimits

PNG = {"Content-Type": "image/png"}
ASK = f"/v1/models/{MODEL}/predict"


@pytest.fixture(autouse=True)
def _redis_may_take_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as Redis is there it is Redis that counts, on a busy machine too."""
    monkeypatch.setattr("service.auth.quotas._PATIENCE", PATIENCE)
    monkeypatch.setattr("service.auth.quotas._SLOT_SECONDS", PATIENCE)


def images(count: int) -> list[tuple[str, tuple[str, bytes, str]]]:
    return [("image", ("x.png", png(0, number), "image/png")) for number in range(count)]


def test_no_other_client_of_redis_is_imported() -> None:
    """Which takes a service as long to start again, and is never used."""
    program = (
        "import sys; from service.auth.quotas import Quotas; from vault.keys import KeyLimits;"
        "Quotas('redis://localhost', None, KeyLimits());"
        "print('redis' in sys.modules, 'valkey' in sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout.split() == ["True", "False"]


def test_requests_a_minute(learned_settings: ServiceSettings) -> None:
    with running(learned_settings) as service, running(learned_settings) as other:
        mine = bearer(token(service.vault, "predict", KeyLimits(requests_per_minute=3)))
        yours = bearer(token(service.vault, "predict", KeyLimits(requests_per_minute=3)))
        answers = [one.client.get("/v1/models", headers=mine) for one in (service, other, service, other)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        assert [answer.headers["RateLimit"].split(";")[1] for answer in answers] == ["r=2", "r=1", "r=0", "r=0"]
        assert answers[0].headers["RateLimit-Policy"] == '"requests";q=3;w=60'
        assert answers[-1].json()["code"] == "rate_limited"
        assert 1 <= int(answers[-1].headers["Retry-After"]) <= 60
        assert service.client.get("/v1/models", headers=yours).status_code == 200


def test_limits_of_one_are_told_in_the_singular(service: Service) -> None:
    one = bearer(token(service.vault, "predict", KeyLimits(requests_per_minute=1)))
    details = [service.client.get("/v1/models", headers=one).json().get("detail") for _ in range(2)]
    assert details == [None, "This key may send 1 request a minute."]
    mine = bearer(token(service.vault, "predict", KeyLimits(images_per_day=1)))
    refused = service.client.post(ASK, files=images(2), headers=mine)
    assert refused.json()["detail"] == "This key may have 1 image a day; left: 1."


def test_the_first_answer_tells_the_whole_window(service: Service) -> None:
    for _ in range(10):
        mine = bearer(token(service.vault, "predict", KeyLimits(requests_per_minute=3)))
        name, left, reset = service.client.get("/v1/models", headers=mine).headers["RateLimit"].split(";")
        assert (name, left) == ('"requests"', "r=2")
        assert 30 <= int(reset.removeprefix("t=")) <= 60


@pytest.mark.parametrize(
    ("counters", "used", "reset"),
    [
        (Counters(0, 0, 0, 0), 0, 60),
        (Counters(0, 0, 1, 120), 1, 60),  # a window that has just begun
        (Counters(0, 0, 3, 119.5), 3, 59.5),
        (Counters(0, 0, 3, 60), 3, 0),
        (Counters(4, 50, 0, 110), 3, 5),  # a quarter of a minute for each of the four
        (Counters(4, 50, 1, 62), 4, 2),
    ],
)
def test_sliding_windows(counters: Counters, used: int, reset: float) -> None:
    assert (counters.used(60), counters.reset(60)) == (used, reset)


def test_images_a_day(service: Service) -> None:
    mine = bearer(token(service.vault, "predict", KeyLimits(images_per_day=5)))
    assert service.client.post(ASK, files=images(3), headers=mine).status_code == 200
    refused = service.client.post(ASK, files=images(3), headers=mine)
    assert (refused.status_code, refused.json()["code"]) == (429, "quota_exceeded")
    assert refused.json()["detail"] == "This key may have 5 images a day; left: 2."
    assert int(refused.headers["Retry-After"]) >= 1
    # What was refused was not used up.
    explained = service.client.post(f"/v1/models/{MODEL}/explain", content=png(0, 1), headers=mine | PNG)
    assert explained.status_code == 200
    assert service.client.post(ASK, content=png(0, 1), headers=mine | PNG).status_code == 200
    assert service.client.post(ASK, content=png(0, 1), headers=mine | PNG).status_code == 429
    assert service.client.get(f"/v1/models/{MODEL}", headers=mine).status_code == 200


def test_open_jobs(service: Service) -> None:
    mine = bearer(token(service.vault, "learn", KeyLimits(open_jobs=1)))
    yours = bearer(token(service.vault, "learn"))

    def submit(name: str, who: dict[str, str]) -> int:
        form = {"name": name, "options": json.dumps(QUICK)}
        files = {"data": ("data.zip", archive((4, 5), 5))}
        answer = service.client.post(f"/v1/models/{MODEL}/tasks", data=form, files=files, headers=who)
        assert answer.status_code != 429 or answer.json()["code"] == "quota_exceeded"
        return answer.status_code

    assert submit("a", yours) == 202
    assert submit("b", mine) == 202
    assert submit("c", mine) == 429
    assert submit("d", yours) == 202
    [job] = [job for job in service.vault.jobs.open_jobs() if job.task == "b"]
    assert job.extra["caller"] == mine["Authorization"].split("_")[1]
    assert service.client.post(f"/v1/jobs/{job.id}/cancel", headers=mine).status_code == 200
    assert submit("e", mine) == 202


def test_jobs_that_are_submitted_at_once_are_counted_one_by_one(learned_settings: ServiceSettings) -> None:
    with running(learned_settings) as service, running(learned_settings) as other:
        mine = bearer(token(service.vault, "learn", KeyLimits(open_jobs=2)))
        data = archive((4, 5), 5)

        def submit(number: int) -> int:
            form = {"name": f"task {number}", "options": json.dumps(QUICK)}
            url = (service, other)[number % 2].url + f"/v1/models/{MODEL}/tasks"
            return httpx.post(
                url, data=form, files={"data": ("data.zip", data)}, headers=mine, timeout=PATIENCE
            ).status_code

        with ThreadPoolExecutor(8) as clients:
            statuses = Counter(clients.map(submit, range(8)))
        assert statuses == {202: 2, 429: 6}
        assert len(service.vault.jobs.open_jobs()) == 2
        assert len(service.vault.objects.list("data")) == 2


@pytest.mark.parametrize("replicas", [1, 2])
def test_no_more_jobs_are_made_at_once_than_there_is_room_for(service: Service, replicas: int) -> None:
    """Each is made a while after it was counted, as where several models or replicas are at it."""
    key, _ = service.vault.keys.create("a test's", "learn", limits=KeyLimits(open_jobs=1))
    jobs = service.vault.jobs

    async def make(quotas: Quotas, number: int) -> bool:
        request = Request({"type": "http", "state": {"key": key}})
        try:
            async with quotas.job_slot(request):
                await asyncio.sleep(0.1)
                jobs.submit(MODEL, f"task {number}", "data", {}, extra={"caller": key.id})
        except QuotaExceeded:
            return False
        return True

    async def race() -> int:
        url = service.vault.settings.redis_url
        several = [Quotas(url, jobs, KeyLimits()) for _ in range(replicas)]
        made = await asyncio.gather(*(make(several[number % replicas], number) for number in range(6)))
        for quotas in several:
            await quotas.close()
        return sum(made)

    assert asyncio.run(race()) == 1
    assert len(jobs.open_jobs()) == 1


def test_the_settings_hold_for_keys_without_limits_of_their_own(learned_settings: ServiceSettings) -> None:
    update = {"requests_per_minute": 2, "images_per_day": 1}
    with running(learned_settings.model_copy(update=update)) as service:
        plain = bearer(token(service.vault, "predict"))
        more = bearer(token(service.vault, "predict", KeyLimits(requests_per_minute=5, images_per_day=2)))
        assert [service.client.get("/v1/models", headers=plain).status_code for _ in range(3)] == [200, 200, 429]
        answers = [service.client.post(ASK, content=png(0, 1), headers=more | PNG) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]


def test_without_keys_nothing_is_counted(learned_settings: ServiceSettings) -> None:
    with running(learned_settings.model_copy(update={"requests_per_minute": 1, "images_per_day": 1})) as service:
        answers = [service.client.post(ASK, content=png(0, 1), headers=PNG) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 200]
        assert "RateLimit" not in answers[0].headers


def test_limits_go_on_in_the_replica_while_redis_is_away(
    learned_settings: ServiceSettings, own_redis: RedisServer
) -> None:
    with running(learned_settings.model_copy(update={"redis_url": own_redis.url})) as service:
        mine = bearer(token(service.vault, "predict", KeyLimits(requests_per_minute=1000, images_per_day=3)))
        assert service.client.post(ASK, content=png(0, 1), headers=mine | PNG).status_code == 200
        own_redis.stop()
        # Of images, since a replica's own windows begin with the clock's: a minute might end between two of these.
        answers = [service.client.post(ASK, content=png(0, 1), headers=mine | PNG) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]


@pytest.mark.parametrize(
    ("uses", "expected"),
    [
        ([], {}),
        (
            [LimitUse("requests", 60, 60, 7, 3), LimitUse("images", 100, 86400, 0, 900)],
            {
                "RateLimit-Policy": '"requests";q=60;w=60, "images";q=100;w=86400',
                "RateLimit": '"requests";r=7;t=3, "images";r=0;t=900',
            },
        ),
    ],
)
def test_headers(uses: list[LimitUse], expected: dict[str, str]) -> None:
    assert remaining(uses) == expected
