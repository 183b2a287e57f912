"""Tests of access control: every route with every scope."""

from __future__ import annotations

import re
import shutil
import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from fastapi import APIRouter, FastAPI

from service.api.route import ScopedRoute, requires_scope, scopes
from service.app import create_app
from service.auth.access import ANYONE
from service.settings import ServiceSettings
from testing.data.digits import png
from testing.data.models import MODEL
from testing.data.tokens import bearer, clients, token
from testing.servers.redis import RedisServer
from testing.servers.service import PATIENCE, Service, running, wait_until
from vault.keys import SCOPES, Scope

PNG = {"Content-Type": "image/png"}
DOCUMENTS = {"/openapi.json", "/docs", "/docs/swagger-ui.js", "/docs/swagger-ui.css"} | {
    *("/", "/ui", "/ui/", "/ui/{digest}/{path:path}"),
}
"""They say how to ask, and are the page that asks, nothing of what is kept; open to all."""

WHO = {
    "GET /livez": ANYONE,
    "GET /readyz": ANYONE,
    "GET /metrics": "predict",
    "GET /v1/models": "predict",
    "GET /v1/summary": "predict",
    "POST /v1/models": "admin",
    "GET /v1/models/{model}": "predict",
    "PATCH /v1/models/{model}": "admin",
    "DELETE /v1/models/{model}": "admin",
    "GET /v1/models/{model}/tasks": "predict",
    "POST /v1/models/{model}/tasks": "learn",
    "GET /v1/models/{model}/tasks/{task}": "predict",
    "PATCH /v1/models/{model}/tasks/{task}": "admin",
    "POST /v1/models/{model}/evaluate": "learn",
    "POST /v1/models/{model}/predict": "predict",
    "POST /v1/models/{model}/explain": "predict",
    "GET /v1/models/{model}/novelty": "predict",
    "GET /v1/models/{model}/versions": "predict",
    "GET /v1/models/{model}/versions/{version}": "predict",
    "POST /v1/models/{model}/versions/{version}/activate": "admin",
    "POST /v1/models/{model}/versions/{version}/reject": "admin",
    "GET /v1/models/{model}/versions/{version}/certificate": "predict",
    "GET /v1/backbones": "predict",
    "POST /v1/backbones": "admin",
    "GET /v1/backbones/{backbone}": "predict",
    "DELETE /v1/backbones/{backbone}": "admin",
    "GET /v1/audit": "admin",
    "GET /v1/keys": "admin",
    "POST /v1/keys": "admin",
    "GET /v1/keys/self": "predict",
    "GET /v1/keys/{key}": "admin",
    "DELETE /v1/keys/{key}": "admin",
    "GET /v1/jobs": "learn",
    "GET /v1/jobs/{job}": "learn",
    "POST /v1/jobs/{job}/cancel": "learn",
    "GET /v1/jobs/{job}/events": "learn",
    "POST /v1/models/{model}:predict": "predict",
    "POST /v1/models/{model}:explain": "predict",
    "GET /v2": ANYONE,
    "GET /v2/health/live": ANYONE,
    "GET /v2/health/ready": ANYONE,
    "GET /v2/models/stats": "predict",
    "GET /v2/models/{model}": "predict",
    "GET /v2/models/{model}/config": "predict",
    "GET /v2/models/{model}/ready": "predict",
    "GET /v2/models/{model}/stats": "predict",
    "POST /v2/models/{model}/infer": "predict",
    "GET /v2/models/{model}/versions/{version}": "predict",
    "GET /v2/models/{model}/versions/{version}/config": "predict",
    "GET /v2/models/{model}/versions/{version}/ready": "predict",
    "GET /v2/models/{model}/versions/{version}/stats": "predict",
    "POST /v2/models/{model}/versions/{version}/infer": "predict",
    "POST /v2/repository/index": "predict",
}
"""Written down a second time, so that no scope is widened by accident."""
WHO |= {route.replace("GET", "HEAD", 1): scope for route, scope in WHO.items() if route.startswith("GET ")}


@pytest.fixture(scope="module")
def guarded(learned_store: Path, redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that asks for keys."""
    store = tmp_path_factory.mktemp("guarded") / "store"
    shutil.copytree(learned_store, store)
    settings = ServiceSettings(store_url=str(store), redis_url=redis_url, drain_seconds=0, keys="required")
    with running(settings) as service:
        yield service


@pytest.fixture(scope="module")
def people(guarded: Service) -> Iterator[dict[str, httpx.Client]]:
    with clients(guarded.vault, guarded.url) as found:
        yield found


def scopes_of(app: FastAPI) -> dict[str, Scope | str | None]:
    """Whom each route lets in, as the app itself has it."""
    return {f"{method} {path}": scope for (method, path), scope in scopes(app).items() if path not in DOCUMENTS}


def test_every_route_declares_whom_it_lets_in(settings: ServiceSettings) -> None:
    assert scopes_of(create_app(settings)) == WHO


def test_a_route_that_does_not_declare_it_cannot_be_made() -> None:
    router = APIRouter(route_class=ScopedRoute)

    async def careless() -> None: ...

    with pytest.raises(TypeError, match="does not say whom it lets in"):
        router.get("/everything")(careless)
    router.get("/everything")(requires_scope("admin")(careless))


def test_a_route_beside_the_doors_would_be_found(settings: ServiceSettings) -> None:
    app = create_app(settings)
    app.get("/undeclared")(lambda: None)
    assert scopes_of(app)["GET /undeclared"] is None


def path_of(route: str) -> tuple[str, str]:
    """A request that changes nothing wherever it is let in: what it names is not there."""
    method, _, path = route.partition(" ")
    return method, re.sub(r"{version}", "99", re.sub(r"{\w*[a-z]}", "none", path.replace("{version}", "99")))


@pytest.mark.parametrize("route", sorted(WHO))
def test_each_scope_at_each_route(people: dict[str, httpx.Client], route: str) -> None:
    method, path = path_of(route)
    wanted = WHO[route]
    for who in ("outsider", *SCOPES):
        response = people[who].request(method, path)
        is_json = response.content and "json" in response.headers.get("Content-Type", "")
        body = response.json() if is_json else None
        code = body.get("code") if isinstance(body, dict) else None
        if wanted == ANYONE or (who in SCOPES and SCOPES.index(who) >= SCOPES.index(wanted)):
            assert code not in ("unauthorized", "forbidden"), who
            assert response.status_code not in (401, 403), who
        elif method == "HEAD":
            assert (response.status_code, response.content) == (401 if who == "outsider" else 403, b"")
        elif who == "outsider":
            assert (response.status_code, code) == (401, "unauthorized")
            assert response.headers["WWW-Authenticate"] == 'Bearer realm="engram"'
        else:
            assert (response.status_code, code) == (403, "forbidden")
            assert f'scope="{wanted}"' in response.headers["WWW-Authenticate"]


@pytest.mark.parametrize(
    "header",
    [
        "Bearer",
        "Bearer nonsense",
        "Basic YWRtaW46YWRtaW4=",
        f"Bearer engram_{'0' * 16}_{'a' * 43}",
        "Bearer " + "x" * 10_000,
        "Bearer \xff\xfe",
    ],
)
def test_what_is_no_key_opens_nothing(guarded: Service, header: str) -> None:
    response = guarded.client.get("/v1/models", headers=[(b"Authorization", header.encode("latin-1"))])
    assert (response.status_code, response.json()["code"]) == (401, "unauthorized")
    assert response.headers["Content-Type"] == "application/problem+json"
    assert 'error="invalid_token"' in response.headers["WWW-Authenticate"]


def test_a_key_does_not_open_with_anothers_secret(guarded: Service) -> None:
    one, other = token(guarded.vault, "predict"), token(guarded.vault, "admin")
    mixed = "_".join([*one.split("_", 2)[:2], other.split("_", 2)[2]])
    assert guarded.client.get("/v1/models", headers=bearer(one)).status_code == 200
    assert guarded.client.get("/v1/models", headers=bearer(mixed)).status_code == 401


def test_an_expired_key_opens_nothing(guarded: Service) -> None:
    def status() -> int:
        return guarded.client.get("/v1/models", headers=bearer(expiring)).status_code

    for seconds in (3, 15, 60):
        soon = datetime.now(UTC) + timedelta(seconds=seconds)
        _, expiring = guarded.vault.keys.create("soon", "predict", soon)
        first = status()
        if datetime.now(UTC) < soon:  # else the answer took too long to say anything
            break
    assert first == 200
    wait_until(lambda: status() == 401)
    assert datetime.now(UTC) >= soon


def test_a_revoked_key_opens_nothing_after_a_moment(guarded: Service) -> None:
    key, opening = guarded.vault.keys.create("for a while", "predict")
    assert guarded.client.get("/v1/models", headers=bearer(opening)).status_code == 200
    guarded.vault.keys.revoke(key.id)
    wait_until(lambda: guarded.client.get("/v1/models", headers=bearer(opening)).status_code == 401)


def test_the_body_of_an_outsider_is_not_waited_for(guarded: Service) -> None:
    port = int(guarded.url.rpartition(":")[2].rstrip("/"))
    for path in ("/v1/models", f"/v1/models/{MODEL}/tasks", f"/v1/models/{MODEL}/predict"):
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
            head = (
                f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n"
            )
            connection.sendall(head.encode())
            assert connection.recv(64).startswith(b"HTTP/1.1 401 ")


def test_doors_are_open_until_there_is_a_key_and_never_again(learned_settings: ServiceSettings) -> None:
    quick = learned_settings.model_copy(update={"key_seconds": 0.1})
    with running(quick) as service:
        assert service.client.get("/v1/models").status_code == 200
        key, opening = service.vault.keys.create("the first", "admin")
        wait_until(lambda: service.client.get("/v1/models").status_code == 401)
        assert service.client.get("/v1/models", headers=bearer(opening)).status_code == 200
        service.vault.keys.revoke(key.id)
        wait_until(lambda: service.client.get("/v1/models", headers=bearer(opening)).status_code == 401)
        service.vault.redis.flushall()
        time.sleep(0.3)
        assert service.client.get("/v1/models").status_code == 401


def test_keys_that_were_turned_off_are_not_asked_for(learned_settings: ServiceSettings) -> None:
    with running(learned_settings.model_copy(update={"keys": "off"})) as service:
        token(service.vault, "predict")
        assert service.client.delete("/v1/models/none").json()["code"] == "unknown_model"


def test_keys_work_without_redis_and_known_ones_without_the_store(
    learned_settings: ServiceSettings, own_redis: RedisServer
) -> None:
    update = {"keys": "required", "redis_url": own_redis.url, "key_seconds": 0.1}
    with running(learned_settings.model_copy(update=update)) as service:
        opening = bearer(token(service.vault, "predict"))
        ask = f"/v1/models/{MODEL}/predict"
        assert service.client.post(ask, content=png(0, 100), headers=PNG | opening).status_code == 200
        own_redis.stop()
        other = bearer(token(service.vault, "predict"))
        assert service.client.post(ask, content=png(0, 100), headers=PNG | other).status_code == 200
        store = learned_settings.store_folder
        assert store is not None
        (store / "keys").rename(store / "away")
        for gone in (True, False):
            if not gone:
                (store / "keys").symlink_to("keys")  # nothing can be listed where a link leads to itself
            time.sleep(1)
            assert service.client.post(ask, content=png(0, 100), headers=PNG | opening).status_code == 200
            assert service.client.post(ask, content=png(0, 100), headers=PNG).status_code == 401


def test_nobody_is_let_in_before_the_keys_were_read(learned_settings: ServiceSettings) -> None:
    store = learned_settings.store_folder
    assert store is not None
    (store / "keys").symlink_to("keys")  # nothing can be listed where a link leads to itself
    for keys in ("auto", "required"):
        with running(learned_settings.model_copy(update={"keys": keys})) as service:
            anybody = bearer(f"engram_{'0' * 16}_{'a' * 43}")
            response = service.client.get("/v1/models", headers=anybody)
            assert (response.status_code, response.json()["code"]) == (503, "store_unavailable")
            assert response.headers["Retry-After"]


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"Host": "evil.example"}, "misdirected_request"),
        ({"Host": "127.0.0.1.evil.example:8000"}, "misdirected_request"),
        ({"Origin": "https://evil.example"}, "cross_site"),
        ({"Origin": "null"}, "cross_site"),
        ({"Sec-Fetch-Site": "cross-site"}, "cross_site"),
        ({"Sec-Fetch-Site": "same-site"}, "cross_site"),
        ({"Host": "localhost:8000"}, "unknown_model"),
        ({"Host": "[::1]:8000"}, "unknown_model"),
        ({"Host": "engram.internal"}, "unknown_model"),
        ({"Host": "localhost:8000", "Origin": "http://localhost:8000"}, "unknown_model"),
        ({"Sec-Fetch-Site": "same-origin"}, "unknown_model"),
        ({"Sec-Fetch-Site": "none"}, "unknown_model"),
    ],
)
def test_no_web_page_profits_from_doors_that_are_open(
    settings: ServiceSettings, headers: dict[str, str], code: str
) -> None:
    with running(settings.model_copy(update={"hosts": ("Engram.internal",)})) as service:
        response = service.client.post("/v1/models/none/versions/1/activate", headers=headers)
        assert response.json()["code"] == code


def test_routes_know_whose_request_it_is(guarded: Service) -> None:
    job = {"name": "x", "data": {"uri": "s3://nowhere/x.zip"}}
    key, opening = guarded.vault.keys.create("asks", "learn")
    refused = guarded.client.post(f"/v1/models/{MODEL}/tasks", json=job, headers=bearer(opening))
    assert refused.json()["code"] == "data_uri_not_allowed"
    assert key.id not in refused.text
