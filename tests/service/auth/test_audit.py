"""Tests of the audit log: every changing call is in it once, whatever dies."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest

from service.settings import ServiceSettings
from testing.data.digits import QUICK, SMALL_MODEL, archive
from testing.data.models import MODEL
from testing.data.networks import ARCHITECTURE, SIZE, weights
from testing.data.tokens import bearer, token
from testing.servers.service import Service, running, wait_until

ENTRIES = [
    "delete",
    "delete_backbone",
    "revoke_key",
    "create_key",
    "activate",
    "publish",
    "decode",
    "widen",
    "cancel",
    "learn",
    "add_backbone",
    "create",
]
"""What `change` does, the newest first."""


@pytest.fixture
def guarded(learned_settings: ServiceSettings) -> ServiceSettings:
    """Settings of a service that asks for keys."""
    return learned_settings.model_copy(update={"keys": "required"})


def change(service: Service, headers: dict[str, str]) -> None:
    """Make every changing call once, and the half of them twice under their idempotency keys."""

    def call(method: str, path: str, *, key: str | None = None, **sent: Any) -> dict[str, Any]:
        asked = headers if key is None else headers | {"Idempotency-Key": key}
        answers = [service.client.request(method, path, headers=asked, **sent) for _ in range(1 if key is None else 2)]
        assert len({answer.text for answer in answers}) == 1
        return dict(answers[0].raise_for_status().json() if answers[0].content else {})

    call("POST", "/v1/models", key="a", json={"name": "made", **SMALL_MODEL})
    described = {"name": "net", "architecture": ARCHITECTURE, "config": json.dumps({"size": SIZE})}
    call("POST", "/v1/backbones", key="b", data=described, files={"weights": weights()})
    form = {"name": "high", "options": json.dumps(QUICK)}
    job = call("POST", f"/v1/models/{MODEL}/tasks", key="c", data=form, files={"data": archive((8, 9))})["job"]
    call("POST", f"/v1/jobs/{job['id']}/cancel")
    call("PATCH", f"/v1/models/{MODEL}", json={"budget": 16.0})
    call("PATCH", f"/v1/models/{MODEL}", json={"background": "#ff0000"})
    call("PATCH", f"/v1/models/{MODEL}", json={"publish": "manual", "budget": 16.0})
    call("POST", f"/v1/models/{MODEL}/versions/1/activate", key="d")
    made = call("POST", "/v1/keys", json={"name": "line 4", "scope": "predict"})
    call("DELETE", f"/v1/keys/{made['id']}")
    call("DELETE", "/v1/backbones/net")
    call("DELETE", "/v1/models/made")
    # What changes nothing has no entry.
    call("PATCH", f"/v1/models/{MODEL}", json={"publish": "manual"})
    call("POST", f"/v1/models/{MODEL}/versions/1/activate")
    call("POST", f"/v1/jobs/{job['id']}/cancel")
    assert service.client.delete("/v1/models/made", headers=headers).status_code == 404


def test_every_changing_call_is_there_once(guarded: ServiceSettings) -> None:
    with running(guarded) as service:
        admin = bearer(token(service.vault, "admin"))
        (key,) = (key for key, _ in service.vault.keys.list())
        change(service, admin)
        entries: list[dict[str, Any]] = []
        after: dict[str, str] = {}
        while True:
            params = {"limit": "5"} | after
            page = service.client.get("/v1/audit", params=params, headers=admin).raise_for_status().json()
            entries += page["entries"]
            if page["next"] is None:
                break
            after = {"after": page["next"]}
        assert [one["action"] for one in entries] == ENTRIES
        assert {json.dumps(one["by"]) for one in entries} == {
            json.dumps({"kind": "key", "id": key.id, "name": key.name})
        }
        of = {one["action"]: one for one in entries}
        assert (of["learn"]["task"], of["learn"]["job"]) == ("high", of["cancel"]["job"])
        assert (of["activate"]["version"], of["activate"]["target"]) == (6, 1)
        assert [of[one]["changed"] for one in ("widen", "decode", "publish", "activate")] == [
            ["budget"],
            ["decoder"],
            ["publish"],
            None,
        ]
        assert (of["create"]["model"], of["delete"]["model"], of["add_backbone"]["backbone"]) == ("made", "made", "net")

        def asked_for(**params: str) -> list[dict[str, Any]]:
            answer = service.client.get("/v1/audit", params=params, headers=admin).raise_for_status()
            return list(answer.json()["entries"])

        assert asked_for(action="widen") == [of["widen"]]
        assert asked_for(model="made") == [of["delete"], of["create"]]
        assert asked_for(since=of["decode"]["at"]) == entries[:7]
        for wrong in ({"action": "fly"}, {"since": "yesterday"}, {"since": "2026-01-01T00:00:00"}, {"after": "x"}):
            assert service.client.get("/v1/audit", params=wrong, headers=admin).status_code == 422
        for scope in ("predict", "learn"):
            headers = bearer(token(service.vault, scope))
            assert service.client.get("/v1/audit", headers=headers).status_code == 403


def test_what_died_before_it_said_so_is_told_by_the_next_that_starts(guarded: ServiceSettings) -> None:
    store = guarded.store_folder
    assert store is not None
    with running(guarded) as service:
        change(service, bearer(token(service.vault, "admin")))
        # Its records went with it: what is owed of it, a deletion writes first (tests/vault/test_audit.py).
        kept = [one for one in service.vault.audit.list() if one.model != "made"]
    shutil.rmtree(store / "audit")
    with running(guarded) as service:
        wait_until(lambda: service.vault.audit.list() == kept)
