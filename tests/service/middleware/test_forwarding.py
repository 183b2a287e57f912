"""Tests of requests that come by a reverse proxy, through a real one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import urljoin

import httpx
import pytest
from pydantic import ValidationError

from service.settings import ServiceSettings
from testing.data.digits import SMALL_MODEL, png
from testing.data.models import MODEL
from testing.servers.reverse_proxy import proxied
from testing.servers.service import Service, running

PNG = {"Content-Type": "image/png"}
TRUSTED: dict[str, object] = {"trusted_proxies": ("127.0.0.1",)}
FORWARDED = {"X-Forwarded-Prefix": "/engram"}


@contextmanager
def behind(
    settings: ServiceSettings,
    changes: Mapping[str, object],
    *,
    strips: bool,
    headers: Mapping[str, str] | None = None,
    prefix: str = "/engram",
) -> Iterator[tuple[httpx.Client, Service]]:
    """A client of the proxy, and the service behind it."""
    with (
        running(settings.model_copy(update=dict(changes))) as service,
        proxied(service.url, prefix, strips=strips, headers=headers) as address,
        httpx.Client(base_url=address, timeout=100) as client,
    ):
        yield client, service


WAYS: dict[str, tuple[dict[str, object], bool, dict[str, str] | None]] = {
    "a setting, the prefix taken off": ({"root_path": "/engram"}, True, None),
    "a setting, the prefix left": ({"root_path": "/engram"}, False, None),
    "a header, the prefix taken off": (TRUSTED, True, FORWARDED),
    "a header, the prefix left": (TRUSTED, False, FORWARDED),
    "both": ({"root_path": "/other", **TRUSTED}, True, FORWARDED),
    "a network": ({"trusted_proxies": ("10.0.0.0/8", "127.0.0.0/8")}, False, {"X-Forwarded-Prefix": "engram/"}),
}


@pytest.mark.parametrize("way", WAYS)
def test_all_addresses_lead_below_the_prefix(learned_settings: ServiceSettings, way: str) -> None:
    changes, strips, headers = WAYS[way]
    with behind(learned_settings, changes, strips=strips, headers=headers) as (client, service):
        for path in ("/engram/", "/engram/ui"):
            led = client.get(path, headers={"Accept": "text/html"})
            assert urljoin(path, led.headers["Location"]) == "/engram/ui/"
        assert client.get("/engram/ui/").status_code == 200
        page = client.get("/engram/docs")
        assert page.status_code == 200
        sources = re.findall(r"<(?:script|link)[^>]*(?:src|href)=\"([^\"]*)\"", page.text)
        sources += re.findall(r"url: '([^']*)'", page.text)
        asked = [urljoin(str(page.url), source) for source in sources if source != "data:,"]
        assert len(asked) == 3
        for address in asked:
            assert client.get(address).status_code == 200, address
        (server,) = client.get("/engram/openapi.json").json()["servers"]
        assert server == {"url": "/engram"}
        # As the page's "Try it out" makes addresses.
        assert client.get(urljoin(str(page.url), server["url"] + "/v1/models")).status_code == 200

        made = client.post("/engram/v1/models", json={"name": "made", **SMALL_MODEL})
        assert made.headers["Location"] == "/engram/v1/models/made"
        assert client.get(made.headers["Location"]).json()["name"] == "made"
        slash = client.get("/engram/v1/models/?limit=1")
        assert (slash.status_code, slash.headers["Location"]) == (307, "/engram/v1/models?limit=1")
        assert len(client.get("/engram/v1/models/?limit=1", follow_redirects=True).json()["models"]) == 1
        answer = client.post(f"/engram/v1/models/{MODEL}/predict/", content=png(2, 100), headers=PNG)
        assert (answer.status_code, answer.headers["Location"]) == (307, f"/engram/v1/models/{MODEL}/predict")
        answer = client.post(f"/engram/v1/models/{MODEL}/predict", content=png(2, 100), headers=PNG)
        assert answer.json()["predictions"][0]["task"] == "mid"
        assert client.get("/engram/readyz").status_code == 200
        # Who asks directly, such as a health check, needs no prefix.
        assert service.client.get("/readyz").status_code == 200


def test_limits_by_path_hold_below_a_prefix(learned_settings: ServiceSettings) -> None:
    changes = {"root_path": "/engram", "max_document_bytes": 2048, "max_requests": 1}
    with behind(learned_settings, changes, strips=False) as (client, _):
        large = {"name": "x", "junk": "x" * 4096}
        assert client.post("/engram/v1/models", json=large).json()["code"] == "request_too_large"
        answer = client.post(f"/engram/v1/models/{MODEL}/predict", content=bytes(4096), headers=PNG)
        assert answer.json()["code"] == "not_an_image"


def test_an_answer_under_a_key_leads_where_it_is_read(settings: ServiceSettings) -> None:
    key = {"Idempotency-Key": "one"}
    body = {"name": "made", **SMALL_MODEL}
    with behind(settings, TRUSTED, strips=True, headers=FORWARDED) as (client, service):
        made = client.post("/engram/v1/models", json=body, headers=key)
        again = service.client.post("/v1/models", json=body, headers=key)
        assert (made.headers["Location"], again.headers["Location"]) == ("/engram/v1/models/made", "/v1/models/made")
        assert again.headers["Idempotent-Replayed"] == "true"


@pytest.mark.parametrize(
    ("changes", "headers"),
    [
        ({}, FORWARDED),
        ({"trusted_proxies": ("10.0.0.0/8", "::1")}, FORWARDED),
        (TRUSTED, {"X-Forwarded-Prefix": "/a b"}),
        (TRUSTED, {"X-Forwarded-Prefix": "/../x"}),
        (TRUSTED, {"X-Forwarded-Prefix": "/v1"}),
        (TRUSTED, {}),
    ],
)
def test_who_is_not_trusted_or_says_nonsense(
    settings: ServiceSettings, changes: dict[str, object], headers: dict[str, str]
) -> None:
    with behind(settings, changes, strips=True, headers=headers) as (client, _):
        made = client.post("/engram/v1/models", json={"name": "made", **SMALL_MODEL})
        assert made.headers["Location"] == "/v1/models/made"
        assert "servers" not in client.get("/engram/openapi.json").json()


def test_a_prefix_is_never_another_host(settings: ServiceSettings) -> None:
    headers = {"X-Forwarded-Prefix": "//elsewhere.example/x"}
    with behind(settings, TRUSTED, strips=True, headers=headers) as (client, _):
        made = client.post("/engram/v1/models", json={"name": "made", **SMALL_MODEL})
        assert made.headers["Location"] == "/elsewhere.example/x/v1/models/made"


def test_prefixes_of_proxies_in_a_row(settings: ServiceSettings) -> None:
    headers = {"X-Forwarded-Prefix": "/outer, /inner/"}
    with behind(settings, TRUSTED, strips=True, headers=headers) as (client, _):
        made = client.post("/engram/v1/models", json={"name": "made", **SMALL_MODEL})
        assert made.headers["Location"] == "/outer/inner/v1/models/made"


def test_a_prefix_with_spaces(settings: ServiceSettings) -> None:
    with behind(settings, {"root_path": "/my%20app"}, strips=False, prefix="/my%20app") as (client, _):
        made = client.post("/my%20app/v1/models", json={"name": "made", **SMALL_MODEL})
        assert made.headers["Location"] == "/my%20app/v1/models/made"
        assert client.get(made.headers["Location"]).status_code == 200


def test_pages_behind_a_proxy_may_ask_their_own_service(settings: ServiceSettings) -> None:
    """Without keys, the origin of a page is compared with the host that the client asked for."""
    forwarded = {"X-Forwarded-Host": "engram.example", "X-Forwarded-Proto": "https"}
    own, other = ({"Origin": f"https://{host}.example"} for host in ("engram", "other"))
    body = {"name": "made", **SMALL_MODEL}
    with behind(settings, TRUSTED, strips=True, headers=forwarded) as (client, _):
        assert client.post("/engram/v1/models", json=body, headers=own).status_code == 201
        assert client.post("/engram/v1/models", json=body, headers=other).json()["code"] == "cross_site"
    with behind(settings, {}, strips=True, headers=forwarded) as (client, _):
        assert client.post("/engram/v1/models", json=body, headers=own).json()["code"] == "cross_site"


def test_a_forwarded_host_opens_nothing(settings: ServiceSettings) -> None:
    guarded = settings.model_copy(update={"hosts": ("localhost",), **TRUSTED})
    with running(guarded) as service:
        for host, forwarded, status in (
            ("127.0.0.1", "127.0.0.1", 200),
            ("evil.example", "localhost", 421),
            ("127.0.0.1", "evil.example", 421),
            ("evil.example", "[", 421),
        ):
            headers = {"Host": host, "X-Forwarded-Host": forwarded}
            assert service.client.get("/v1/models", headers=headers).status_code == status, headers


@pytest.mark.parametrize(
    ("given", "plain"),
    [
        ("", ""),
        ("/", ""),
        ("/engram", "/engram"),
        ("engram", "/engram"),
        ("/engram/", "/engram"),
        (" /a/b.c-d~/ ", "/a/b.c-d~"),
        ("/my%20app", "/my%20app"),
        ("/v1/engram", "/v1/engram"),
        ("/v2/engram", "/v2/engram"),
    ],
)
def test_prefixes(given: str, plain: str) -> None:
    assert ServiceSettings(root_path=given).root_path == plain


@pytest.mark.parametrize(
    "given",
    [
        "/a b",
        "/a//b",
        "/../a",
        "/a/%2e%2e",
        "/a?b",
        "/a#b",
        "https://host/a",
        "/v1",
        "/v1/models/x",
        "/v2",
        "/v2/models/x",
        "/docs",
        "/livez",
    ],
)
def test_what_is_no_prefix(given: str) -> None:
    with pytest.raises(ValidationError):
        ServiceSettings(root_path=given)


def test_proxies_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for given in ("127.0.0.1, 10.0.0.0/8,::1", '["127.0.0.1", "10.0.0.0/8", "::1"]'):
        monkeypatch.setenv("ENGRAM_TRUSTED_PROXIES", given)
        assert ServiceSettings().trusted_proxies == ("127.0.0.1/32", "10.0.0.0/8", "::1/128")
    for wrong in ("proxy.example", "10.0.0.1/8", "*", "[1", "127.0.0.1:80"):
        monkeypatch.setenv("ENGRAM_TRUSTED_PROXIES", wrong)
        with pytest.raises(ValidationError):
            ServiceSettings()
