"""Tests of API keys over HTTP."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from engram_client import AsyncClient, Client

from service.settings import ServiceSettings
from testing.data.tokens import bearer, token
from testing.servers.service import Service, running
from vault.keys import parse


def make(service: Service, headers: dict[str, str], **fields: Any) -> dict[str, Any]:
    answer = service.client.post("/v1/keys", json={"name": "line 4", "scope": "predict"} | fields, headers=headers)
    assert answer.status_code == 201, answer.text
    assert answer.headers["Cache-Control"] == "no-store"
    found: dict[str, Any] = answer.json()
    assert answer.headers["Location"] == f"/v1/keys/{found['id']}"
    return found


def bare(text: str) -> str:
    """The secret in a token; it may have underscores."""
    found = parse(text)
    assert found is not None
    return found[1]


def stored(service: Service) -> bytes:
    folder = service.vault.settings.store_folder
    assert folder is not None
    return b"".join(path.read_bytes() for path in Path(folder).rglob("*") if path.is_file())


def test_the_life_of_a_key(empty: Service, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    anyone = empty.client.get("/v1/keys/self").json()
    assert (anyone["id"], anyone["scope"]) == (None, "admin"), "without keys everybody may do everything"
    refused = empty.client.post("/v1/keys", json={"name": "line 4", "scope": "predict"})
    assert (refused.status_code, refused.json()["code"]) == (409, "first_key_scope")
    first = make(empty, {}, name="ops", scope="admin")
    admin = bearer(first["token"])
    assert empty.client.get("/v1/models").status_code == 401, "from now on everybody needs one, here at once"
    until = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    second = make(empty, admin, expires_at=until, requests_per_minute=600)
    line = bearer(second["token"])
    assert empty.client.get("/v1/models", headers=line).status_code == 200
    with Client(empty.url, key=second["token"]) as client:
        own = client.own_key()
        assert (own.id, own.name, own.scope, own.expires_at) == (
            *(second[field] for field in ("id", "name", "scope")),
            second["expires_at"],
        )
        assert own.raw["requests_per_minute"] == 600
    for method in ("GET", "POST"):
        assert empty.client.request(method, "/v1/keys", headers=line).status_code == 403
    listed = empty.client.get("/v1/keys", headers=admin).json()
    assert [(one["name"], one["state"]) for one in listed["keys"]] == [("ops", "valid"), ("line 4", "valid")]
    assert listed["keys"][1] == {key: value for key, value in second.items() if key != "token"}
    assert (listed["keys"][1]["requests_per_minute"], listed["keys"][1]["open_jobs"]) == (600, None)
    page = empty.client.get("/v1/keys", params={"limit": 1}, headers=admin).json()
    rest = empty.client.get("/v1/keys", params={"after": page["next"]}, headers=admin).json()
    assert (page["keys"] + rest["keys"], rest["next"]) == (listed["keys"], None)
    path = f"/v1/keys/{second['id']}"
    for _ in range(2):
        assert empty.client.delete(path, headers=admin).status_code == 204
    assert empty.client.get("/v1/models", headers=line).status_code == 401, "here at once"
    assert empty.client.get(path, headers=admin).json()["state"] == "revoked"
    assert empty.client.delete("/v1/keys/none", headers=admin).status_code == 404
    told = empty.client.get("/v1/audit", headers=admin).json()["entries"]
    ops = {"kind": "key", "id": first["id"], "name": "ops"}
    nobody = {"kind": "anonymous", "id": None, "name": None}
    assert [(one["action"], one["key"], one["by"]) for one in told] == [
        ("revoke_key", second["id"], ops),
        ("create_key", second["id"], ops),
        ("create_key", first["id"], nobody),
    ]
    for secret in (first["token"], second["token"]):
        assert bare(secret).encode() not in stored(empty)
        assert bare(secret) not in caplog.text


def test_a_request_made_again_makes_no_other_key(settings: ServiceSettings) -> None:
    with running(settings.model_copy(update={"keys": "required"})) as service:
        headers = bearer(token(service.vault, "admin")) | {"Idempotency-Key": "one"}
        made = make(service, headers)
        again = service.client.post("/v1/keys", json={"name": "line 4", "scope": "predict"}, headers=headers)
        assert (again.status_code, again.json()["code"]) == (409, "key_exists")
        assert made["id"] in again.json()["detail"]
        other = service.client.post("/v1/keys", json={"name": "line 5", "scope": "predict"}, headers=headers)
        assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
        assert [key.id for key, _ in service.vault.keys.list()][1:] == [made["id"]]
        assert bare(made["token"]).encode() not in stored(service)


def test_by_both_clients(empty: Service) -> None:
    with Client(empty.url) as anybody:
        admin = anybody.create_key("ops", "admin")
        assert admin.token is not None
        assert admin.token not in repr(admin)
    until = datetime.now(UTC) + timedelta(days=1)

    async def life() -> None:
        async with AsyncClient(empty.url, admin.token) as client:
            made = await client.create_key("line 4", "predict", expires_at=until, open_jobs=2)
            assert (made.scope, made.raw["open_jobs"]) == ("predict", 2)
            await client.revoke_key(made.id)
            assert [(one.name, one.state, one.token) for one in await client.keys()] == [
                ("ops", "valid", None),
                ("line 4", "revoked", None),
            ]
            assert [one.action for one in await client.audit(limit=2)] == ["revoke_key", "create_key"]

    asyncio.run(life())
    with Client(empty.url, admin.token) as client:
        (last,) = client.audit(action="revoke_key", since=until - timedelta(days=2))
        assert last.by is not None
        assert (last.by.kind, last.by.name) == ("key", "ops")


@pytest.mark.parametrize(
    "fields",
    [
        {"scope": "root"},
        {"name": ""},
        {"name": " a"},
        {"name": "a\nb"},
        {"expires_at": "2020-01-01T00:00:00Z"},
        {"expires_at": "2120-01-01T00:00:00"},
        {"open_jobs": 0},
        {"images_per_day": 10**13},
        {"id": "0" * 16},
    ],
)
def test_what_is_no_key_is_not_made(empty: Service, fields: dict[str, Any]) -> None:
    answer = empty.client.post("/v1/keys", json={"name": "a", "scope": "admin"} | fields)
    assert answer.status_code == 422, answer.text
    assert empty.vault.keys.list() == []
