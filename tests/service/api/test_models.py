"""Tests of models over HTTP."""

from __future__ import annotations

import pytest

from service.api.schemas import ModelRequest
from service.settings import ServiceSettings
from testing.data.digits import SMALL_MODEL
from testing.data.models import submit
from testing.servers.service import Service, running, wait_until


def test_a_model_is_created_once(empty: Service) -> None:
    made = empty.client.post("/v1/models", json={"name": "m", **SMALL_MODEL})
    assert made.status_code == 201
    assert made.headers["Location"] == "/v1/models/m"
    model = made.json()
    assert (model["name"], model["version"], model["tasks"], model["backbone"]) == ("m", 0, [], "mlp")
    shape = {"channels": 1, "height": 8, "width": 8, "convert": False, "background": None}
    assert model["input"] == {**shape, "fit": "stretch", "crop": 1.0, "interpolation": "bilinear"}
    assert all(layer["free"] == layer["units"] > 0 for layer in model["capacity"])
    again = empty.client.post("/v1/models", json={"name": "m", **SMALL_MODEL})
    assert (again.status_code, again.json()) == (200, model)
    assert again.headers["Location"] == "/v1/models/m"
    other = empty.client.post("/v1/models", json={"name": "m", **SMALL_MODEL, "width": 0.5})
    assert (other.status_code, other.json()["code"]) == (409, "model_exists")
    assert empty.client.get("/v1/models/m").json() == model
    assert model["exact"] is True


def test_a_model_of_an_earlier_version_is_known_again(empty: Service) -> None:
    now = ModelRequest.model_validate({"name": "m", **SMALL_MODEL}).definition().model_dump(mode="json")
    empty.vault.models.create("m", {name: value for name, value in now.items() if name != "settings"})
    made = empty.client.post("/v1/models", json={"name": "m", **SMALL_MODEL})
    assert (made.status_code, made.json()["version"]) == (201, 0)
    assert empty.client.post("/v1/models", json={"name": "m", **SMALL_MODEL}).json() == made.json()
    other = empty.client.post("/v1/models", json={"name": "m", **SMALL_MODEL, "method": "rnf"})
    assert (other.status_code, other.json()["code"]) == (409, "model_exists")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"name": "Big"}, "invalid_request"),
        ({"name": ""}, "invalid_request"),
        ({"name": "a/b"}, "invalid_request"),
        ({"backbone": "vgg"}, "invalid_request"),
        ({"input": {"channels": 2, "height": 8, "width": 8}}, "invalid_request"),
        ({"colour": "red"}, "invalid_request"),
        ({"budget": {"dense9": 5}}, "invalid_definition"),
        ({"method": "sharc"}, "invalid_definition"),
        ({"method": "sharc", "retention": "features", "settings": {"quantile": 1}}, "invalid_request"),
        ({"method": "rnf", "settings": {"preset": "none such"}}, "invalid_request"),
        ({"method": "rnf", "settings": {"preset": []}}, "invalid_request"),
        ({"method": "rnf", "settings": {"preset": None}}, "invalid_request"),
        ({"settings": {"recognise_by": []}}, "invalid_request"),
        ({"settings": {"recognise_by": ["ridge", "ridge"]}}, "invalid_request"),
        ({"retention": "features"}, "invalid_definition"),
    ],
)
def test_definitions_that_do_not_fit(empty: Service, change: dict[str, object], code: str) -> None:
    response = empty.client.post("/v1/models", json={"name": "m", **SMALL_MODEL, **change})
    assert (response.status_code, response.json()["code"]) == (422, code)
    if code == "invalid_request":
        assert response.json()["errors"][0]["loc"][0] == "body"
    assert empty.vault.objects.list("models") == []


def test_a_body_that_is_no_json(empty: Service) -> None:
    response = empty.client.post("/v1/models", content=b"{nope", headers={"Content-Type": "application/json"})
    assert (response.status_code, response.json()["code"]) == (400, "invalid_json")


@pytest.mark.parametrize("media", ["text/plain", "application/x-www-form-urlencoded", None])
@pytest.mark.parametrize("content", [b'{"name": "m"}', b""])
def test_a_body_that_does_not_say_it_is_json(empty: Service, media: str | None, content: bytes) -> None:
    headers = {"Content-Type": media} if media else {}
    for method, path in (("POST", "/v1/models"), ("PATCH", "/v1/models/m")):
        response = empty.client.request(method, path, content=content, headers=headers)
        assert (response.status_code, response.json()["code"]) == (415, "unsupported_media_type")


@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"name":' * 100_000, b'{"name": "\xff"}', b"1" * 10_000])
def test_json_that_cannot_be_parsed(empty: Service, content: bytes) -> None:
    response = empty.client.post("/v1/models", content=content, headers={"Content-Type": "application/json"})
    assert (response.status_code, response.json()["code"]) == (400, "invalid_json")


def test_models_are_listed_by_pages(empty: Service) -> None:
    for name in ("c", "a", "b"):
        empty.client.post("/v1/models", json={"name": name, **SMALL_MODEL}).raise_for_status()
    first = empty.client.get("/v1/models", params={"limit": 2}).json()
    assert [model["name"] for model in first["models"]] == ["a", "b"]
    second = empty.client.get("/v1/models", params={"limit": 2, "after": first["next"]}).json()
    assert [model["name"] for model in second["models"]] == ["c"]
    assert second["next"] is None


def test_more_room_makes_a_version(service: Service) -> None:
    before = service.client.get("/v1/models/digits").json()
    wider = service.client.patch("/v1/models/digits", json={"budget": {"dense1": 4096}})
    assert wider.status_code == 200
    assert wider.json()["version"] == before["version"] + 1
    rooms = {layer["layer"]: layer for layer in wider.json()["capacity"]}
    assert rooms["dense1"]["units"] == 4096
    assert rooms["dense1"]["owned"] == before["capacity"][0]["owned"]
    less = service.client.patch("/v1/models/digits", json={"budget": {"dense1": 1}})
    assert (less.status_code, less.json()["code"]) == (422, "invalid_definition")


def test_room_that_is_there_already_makes_no_version(service: Service) -> None:
    before = service.client.get("/v1/models/digits").json()
    for budget in (before["budget"], {"dense1": before["budget"]["dense1"]}):
        same = service.client.patch("/v1/models/digits", json={"budget": budget})
        assert (same.status_code, same.json()) == (200, before)
    assert len(service.client.get("/v1/models/digits/versions").json()["versions"]) == before["version"] + 1


def test_all_models_at_one_look(service: Service) -> None:
    for name in ("a", "z"):
        assert service.client.post("/v1/models", json={"name": name, **SMALL_MODEL}).status_code == 201
    first = service.client.get("/v1/summary?limit=2").json()
    rest = service.client.get("/v1/summary", params={"limit": 2, "after": first["next"]}).json()
    assert rest["next"] is None
    found = {one["name"]: one for one in first["models"] + rest["models"]}
    assert list(found) == ["a", "digits", "z"]
    one = service.client.get("/v1/models/digits").json()
    assert found["digits"] == {
        **{field: one[field] for field in ("name", "version", "created_at", "method", "backbone", "exact", "problems")},
        "tasks": 2,
        "novelty": "known",
        "samples": service.client.get("/v1/models/digits/novelty").json()["samples"],
    }
    assert (found["a"]["version"], found["a"]["tasks"], found["a"]["problems"]) == (0, 0, [])


def test_a_model_that_cannot_be_loaded_is_seen_with_its_problem(learned_settings: ServiceSettings) -> None:
    assert learned_settings.store_folder is not None
    for commit in (learned_settings.store_folder / "models" / "digits" / "log").rglob("*.json"):
        commit.write_bytes(b"{")
    with running(learned_settings) as service:
        wait_until(lambda: service.client.get("/v1/summary").json()["models"])
        (found,) = service.client.get("/v1/summary").json()["models"]
        assert (found["name"], found["version"], found["exact"], found["novelty"]) == ("digits", 0, None, None)
        assert [one["code"] for one in found["problems"]] == ["damaged"]


def test_a_deleted_model_is_gone_with_its_jobs(service: Service) -> None:
    job = submit(service.vault, "high", (8, 9))
    assert service.client.delete("/v1/models/digits").status_code == 204
    assert service.client.get("/v1/models/digits").status_code == 404
    assert service.client.get("/v1/models").json() == {"models": [], "next": None}
    assert service.client.get(f"/v1/jobs/{job.id}").json()["state"] == "cancelled"
    assert service.vault.objects.list("data") == []
    assert service.client.get("/readyz").status_code == 503
    made = service.client.post("/v1/models", json={"name": "digits", **SMALL_MODEL, "seed": 5})
    assert (made.json()["version"], made.json()["tasks"]) == (0, [])
