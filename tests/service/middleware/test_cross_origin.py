"""Tests of what web pages of other origins may ask and read."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from pydantic import ValidationError

from service.app import create_app
from service.settings import ServiceSettings
from testing.data.digits import SMALL_MODEL, png
from testing.data.models import MODEL
from testing.data.tokens import bearer, token
from testing.servers.service import Service, running
from tests.service.errors.test_problem_details import ask

PAGE = "https://app.example"
PREDICT = f"/v1/models/{MODEL}/predict"
FROM_PAGE = {"Origin": PAGE}
FROM_ELSEWHERE = {"Origin": "https://other.example"}
PNG = {"Content-Type": "image/png"}


@pytest.fixture
def keyed(learned_settings: ServiceSettings) -> Iterator[Service]:
    """A service that pages of one origin may ask, with a key."""
    changes = {"cors_origins": (PAGE,), "keys": "required", "max_request_bytes": 4096, "max_requests": 1}
    with running(learned_settings.model_copy(update=changes)) as service:
        yield service


def preflight(
    service: Service, origin: str = PAGE, method: str = "POST", headers: str = "authorization,content-type"
) -> httpx.Response:
    asked = {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": headers}
    return service.client.options(PREDICT, headers={"Origin": origin, **asked})


def readable(response: httpx.Response) -> bool:
    return bool(response.headers.get("Access-Control-Allow-Origin") == PAGE)


def test_a_preflight_needs_no_key(keyed: Service) -> None:
    for method in ("GET", "HEAD", "POST", "PATCH", "DELETE"):
        answer = preflight(keyed, method=method, headers="authorization, content-type, idempotency-key, last-event-id")
        assert (answer.status_code, readable(answer)) == (200, True)
        assert method in answer.headers["Access-Control-Allow-Methods"]
        assert "Access-Control-Allow-Credentials" not in answer.headers
        assert "Origin" in answer.headers["Vary"]


@pytest.mark.parametrize(
    ("origin", "method", "headers"),
    [
        ("https://other.example", "POST", "authorization"),
        ("http://app.example", "POST", "authorization"),
        ("https://app.example:8443", "POST", "authorization"),
        ("https://app.example.evil.example", "POST", "authorization"),
        ("null", "POST", "authorization"),
        (PAGE, "PUT", "authorization"),
        (PAGE, "POST", "x-odd"),
    ],
)
def test_a_preflight_for_what_is_not_allowed(keyed: Service, origin: str, method: str, headers: str) -> None:
    answer = preflight(keyed, origin, method, headers)
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert (answer.status_code, answer.json()["code"]) == (403, "cross_site")
    assert readable(answer) == (origin == PAGE)


def test_the_request_itself_needs_a_key_and_may_be_read(keyed: Service) -> None:
    key = bearer(token(keyed.vault, "predict"))
    answer = keyed.client.post(PREDICT, content=png(2, 100), headers={**FROM_PAGE, **PNG, **key})
    assert (answer.status_code, readable(answer)) == (200, True)
    exposed = set(answer.headers["Access-Control-Expose-Headers"].split(", "))
    assert {"Location", "Retry-After", "X-Request-ID", "X-Engram-Task", "X-Engram-Label"} <= exposed
    elsewhere = keyed.client.post(PREDICT, content=png(2, 100), headers={**FROM_ELSEWHERE, **PNG, **key})
    assert elsewhere.status_code == 200  # a key is a key; but no page of that origin reads it
    assert "Access-Control-Allow-Origin" not in elsewhere.headers


def test_refusals_may_be_read(keyed: Service) -> None:
    key = bearer(token(keyed.vault, "predict"))
    for status, answer in (
        (401, keyed.client.get("/v1/models", headers=FROM_PAGE)),
        (403, keyed.client.get("/v1/jobs", headers={**FROM_PAGE, **key})),
        (404, keyed.client.get("/nowhere", headers=FROM_PAGE)),
        (405, keyed.client.put("/v1/models", headers=FROM_PAGE)),
        (413, keyed.client.post(PREDICT, content=bytes(5000), headers={**FROM_PAGE, **PNG, **key})),
        (415, keyed.client.post(PREDICT, content=b"x", headers={**FROM_PAGE, "Content-Type": "text/plain", **key})),
        (422, keyed.client.post(PREDICT, content=b"x", headers={**FROM_PAGE, **PNG, **key})),
    ):
        assert (answer.status_code, readable(answer)) == (status, True)
        assert answer.headers["Content-Type"] == "application/problem+json"


def test_refusals_for_want_of_room_too_and_preflights_are_no_load(keyed: Service) -> None:
    key = bearer(token(keyed.vault, "predict"))

    def slow() -> Iterator[bytes]:
        yield b"x"
        refused = keyed.client.get("/v1/models", headers={**FROM_PAGE, **key})
        assert (refused.status_code, readable(refused)) == (503, True)
        assert "Retry-After" in refused.headers
        assert preflight(keyed).status_code == 200

    with httpx.Client(base_url=keyed.url, timeout=100) as client:
        assert client.post(PREDICT, content=slow(), headers={**PNG, **key}).status_code == 422


def test_refused_connections_may_be_read(learned_settings: ServiceSettings) -> None:
    changes = {"cors_origins": (PAGE,), "max_connections": 1}
    with running(learned_settings.model_copy(update=changes)) as service:

        def slow() -> Iterator[bytes]:
            yield b"x"
            with httpx.Client(base_url=service.url) as second:
                refused = second.get("/v1/models", headers=FROM_PAGE)
            assert (refused.status_code, readable(refused)) == (503, True)

        assert service.client.post(PREDICT, content=slow(), headers=PNG).status_code == 422


def test_failures_too(settings: ServiceSettings) -> None:
    app = create_app(settings.model_copy(update={"cors_origins": (PAGE,)}))
    answer = ask(app, path="/v1/models", headers=FROM_PAGE)  # it was never started, which nobody foresaw
    assert (answer.status_code, answer.json()["code"], readable(answer)) == (500, "internal_error", True)


def test_none_by_default(reader: Service) -> None:
    answer = reader.client.get("/v1/models", headers=FROM_PAGE)
    assert not any(name.startswith("access-control-") for name in answer.headers)
    assert preflight(reader).status_code == 405


def test_without_keys_a_named_origin_may_change_things_and_all_may_not(settings: ServiceSettings) -> None:
    body = {"name": "made", **SMALL_MODEL}
    for origins, status in (((PAGE,), 201), (("*",), 403)):
        with running(settings.model_copy(update={"cors_origins": origins})) as service:
            headers = {**FROM_PAGE, "Sec-Fetch-Site": "cross-site"}
            made = service.client.post("/v1/models", json=body, headers=headers)
            assert made.status_code == status
            other = service.client.delete("/v1/models/made", headers=FROM_ELSEWHERE)
            assert other.json()["code"] == "cross_site"
            read = service.client.get("/v1/models", headers=FROM_PAGE)
            assert read.headers["Access-Control-Allow-Origin"] == (PAGE if status == 201 else "*")
            assert "Access-Control-Allow-Credentials" not in read.headers
            if status == 201:
                service.client.delete("/v1/models/made").raise_for_status()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("https://app.example", ("https://app.example",)),
        ("HTTPS://App.Example:443, http://localhost:3000", ("https://app.example", "http://localhost:3000")),
        ('["http://[::1]:8080", "http://a.example:80"]', ("http://[::1]:8080", "http://a.example")),
        ("*", ("*",)),
        ("", ()),
        ("[]", ()),
    ],
)
def test_origins_by_the_environment(monkeypatch: pytest.MonkeyPatch, given: str, expected: tuple[str, ...]) -> None:
    monkeypatch.setenv("ENGRAM_CORS_ORIGINS", given)
    assert ServiceSettings().cors_origins == expected


@pytest.mark.parametrize(
    "given",
    ["app.example", "https://a.example/", "https://a.example/x", "null", "https://*.a", "ftp://a", "https://a:x", "[1"],
)
def test_what_is_no_origin(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("ENGRAM_CORS_ORIGINS", given)
    with pytest.raises(ValidationError):
        ServiceSettings()
