"""Tests of changing a model's decoder over HTTP."""

from __future__ import annotations

from typing import Any

import pytest

from testing.data.digits import SMALL_MODEL
from testing.servers.service import Service, wait_until

MODEL = "/v1/models/digits"
VERSIONS = f"{MODEL}/versions"


def change(service: Service, **fields: Any) -> dict[str, Any]:
    answer = service.client.patch(MODEL, json=fields)
    answer.raise_for_status()
    model: dict[str, Any] = answer.json()
    return model


def shown(service: Service, version: int) -> tuple[Any, ...]:
    found = service.client.get(f"{VERSIONS}/{version}").json()
    return found["kind"], found["decoder"], found["background"]


def test_another_decoder_is_another_version(service: Service) -> None:
    before = service.client.get(MODEL).json()
    assert (before["version"], before["decoder"], before["input"]["background"]) == (2, 2, None)
    after = change(service, background="#00ff00")
    assert (after["version"], after["decoder"], after["input"]["background"]) == (3, 2, "#00ff00")
    assert {name for name in after if after[name] != before[name]} == {"version", "input"}
    first = change(service, decoder=1)  # which has no background
    assert (first["version"], first["decoder"], first["input"]["background"]) == (4, 1, None)
    assert change(service, decoder=2) == {**before, "version": 5}
    assert service.client.get(MODEL).json()["version"] == 5
    found = [("learn", 2, None), ("decoder", 2, "#00ff00"), ("decoder", 1, None), ("decoder", 2, None)]
    assert [shown(service, number) for number in (2, 3, 4, 5)] == found
    listed = service.client.get(VERSIONS, params={"limit": 4}).json()["versions"]
    assert [(one["kind"], one["decoder"], one["background"]) for one in listed] == found[::-1]


def test_what_is_so_already_makes_no_version(service: Service) -> None:
    before = service.client.get(MODEL).json()
    for fields in ({"decoder": 2}, {"background": None}, {"decoder": 2, "budget": before["budget"]}):
        assert change(service, **fields) == before
    change(service, decoder=1)
    assert change(service, decoder=1, background=None)["version"] == 3
    assert len(service.client.get(VERSIONS).json()["versions"]) == 4


def test_a_colour_in_capitals_is_the_same_colour(service: Service) -> None:
    after = change(service, background="#00FF0A")
    assert (after["version"], after["input"]["background"]) == (3, "#00ff0a")
    assert shown(service, 3) == ("decoder", 2, "#00ff0a")
    assert change(service, background="#00ff0a")["version"] == 3


def test_room_and_decoder_at_once_are_one_version(service: Service) -> None:
    after = change(service, decoder=1, budget={"dense1": 4096})
    assert (after["version"], after["decoder"], after["budget"]["dense1"]) == (3, 1, 4096)
    assert shown(service, 3)[0] == "decoder"
    refused = service.client.patch(MODEL, json={"decoder": 2, "budget": {"dense1": 1}})
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_definition")
    assert service.client.get(MODEL).json() == after


def test_activating_a_version_brings_its_decoder_back(service: Service) -> None:
    change(service, decoder=1)
    change(service, decoder=2, background="#00ff00")
    back = service.client.post(f"{VERSIONS}/3/activate").json()
    assert (back["version"], back["decoder"], back["background"]) == (5, 1, None)
    assert service.client.get(MODEL).json()["decoder"] == 1
    assert service.client.post(f"{VERSIONS}/3/activate").status_code == 200
    # The same weights and another decoder are another content.
    assert service.client.post(f"{VERSIONS}/2/activate").status_code == 201
    assert service.client.get(MODEL).json()["decoder"] == 2
    numbers = [
        service.client.get(f"{VERSIONS}/{number}/certificate").json()["decoder"]["number"] for number in range(1, 7)
    ]
    assert numbers == [2, 2, 1, 2, 1, 2]


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({}, "invalid_request"),
        ({"decoder": 3}, "invalid_request"),
        ({"decoder": 0}, "invalid_request"),
        ({"decoder": "2"}, "invalid_request"),
        ({"decoder": None}, "invalid_request"),
        ({"budget": None}, "invalid_request"),
        ({"decoder": 2, "budget": None}, "invalid_request"),
        ({"background": "white"}, "invalid_request"),
        ({"background": "#FFFFF"}, "invalid_request"),
        ({"background": 0}, "invalid_request"),
        ({"recipe": 2}, "invalid_request"),
        ({"decoder": 1, "background": "#ffffff"}, "invalid_definition"),
    ],
)
def test_what_does_not_fit_changes_nothing(reader: Service, fields: dict[str, Any], code: str) -> None:
    refused = reader.client.patch(MODEL, json=fields)
    assert (refused.status_code, refused.json()["code"]) == (422, code), refused.text
    assert reader.client.get(MODEL).json()["version"] == 2


def test_a_background_needs_a_decoder_that_takes_one(service: Service) -> None:
    change(service, decoder=1)
    refused = service.client.patch(MODEL, json={"background": "#00ff00"})
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_definition")
    assert "decoder 1" in refused.json()["detail"]
    assert change(service, decoder=2, background="#00ff00")["version"] == 4


def test_a_model_that_has_learned_nothing_can_have_another_decoder(empty: Service) -> None:
    made = empty.client.post("/v1/models", json={"name": "m", **SMALL_MODEL}).json()
    after = empty.client.patch("/v1/models/m", json={"decoder": 1})
    assert (after.status_code, after.json()) == (200, {**made, "decoder": 1, "version": 1})
    # The definition is what it was made as.
    again = empty.client.post("/v1/models", json={"name": "m", **SMALL_MODEL})
    assert (again.status_code, again.json()["decoder"]) == (200, 1)


def test_a_version_by_a_decoder_of_a_later_release_is_not_served(service: Service) -> None:
    head = service.vault.log.head("digits")
    assert head is not None
    service.vault.log.append("digits", head.following("decoder", decoding={"decoder": 3, "background": None}))
    # Without a notice, what the service saw a moment ago may still be told.
    wait_until(lambda: service.client.get(MODEL).json()["problems"])
    model = service.client.get(MODEL).json()
    assert (model["version"], model["decoder"]) == (2, 2)
    assert [(one["code"], one["version"]) for one in model["problems"]] == [("unsupported_format", 3)]
    assert shown(service, 3) == ("decoder", 3, None)
    refused = service.client.patch(MODEL, json={"decoder": 1})
    assert (refused.status_code, refused.json()["code"]) == (500, "unsupported_format")
    assert service.client.post(f"{VERSIONS}/2/activate").status_code == 201
    assert service.client.get(MODEL).json()["problems"] == []
