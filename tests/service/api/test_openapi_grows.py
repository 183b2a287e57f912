"""Tests of the OpenAPI document's compatibility with that of an earlier release.

`files/openapi-0ab2d93.json` is the document of commit 0ab2d93. Schemas may be called otherwise: they are compared by
what they hold.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.app import create_app

EARLIER = json.loads((Path(__file__).parents[1] / "files" / "openapi-0ab2d93.json").read_text())

NAMES = ("title", "description", "summary", "operationId")
"""Words for people, and names that are ours to choose."""


KNOWINGLY = {
    "/predictions/items/anyOf/0/properties/known/type is gone": "null where a task of a new model cannot tell",
    "/schema/properties/commons: no reference any more": "one definition as before, or a list of several",
}
"""What changed all the same, and why; programs that read it are told in the upgrade guide."""


class Comparison:
    """Where a document of today lacks or changes something that an earlier one has."""

    def __init__(self, earlier: dict[str, Any], today: dict[str, Any]) -> None:
        self._earlier = earlier
        self._today = today
        self._compared: set[tuple[str, str]] = set()

    def lost(self) -> list[str]:
        """The places, by their paths; components are compared where paths refer to them."""
        return list(self._lost(self._earlier["paths"], self._today["paths"], "paths"))

    def _lost(self, then: Any, now: Any, where: str) -> Iterator[str]:
        if isinstance(then, dict) and "$ref" in then:
            yield from self._referred(then, now, where)
        elif isinstance(then, dict):
            yield from self._fields(then, now, where)
        elif isinstance(then, list) and all(isinstance(one, str) for one in then):
            if not isinstance(now, list) or not set(then) <= set(now):
                yield f"{where}: {then} became {now}"
        elif isinstance(then, list):
            if not isinstance(now, list) or len(now) < len(then):
                yield f"{where}: shorter"
                return
            for number, (one, other) in enumerate(zip(then, now, strict=False)):
                yield from self._lost(one, other, f"{where}/{number}")
        elif then != now:
            yield f"{where}: {then!r} became {now!r}"

    def _referred(self, then: dict[str, Any], now: Any, where: str) -> Iterator[str]:
        if not isinstance(now, dict) or "$ref" not in now:
            yield f"{where}: no reference any more"
            return
        pair = (then["$ref"], now["$ref"])
        if pair not in self._compared:
            self._compared.add(pair)
            yield from self._lost(found(pair[0], self._earlier), found(pair[1], self._today), where)

    def _fields(self, then: dict[str, Any], now: Any, where: str) -> Iterator[str]:
        if not isinstance(now, dict):
            yield f"{where}: no object any more"
            return
        asked = "/requestBody/" in where and isinstance(then.get("required", []), list)
        if asked and (demanded := set(now.get("required", [])) - set(then.get("required", []))):
            yield f"{where}: {sorted(demanded)} became required"
        for name, value in then.items():
            if name in NAMES and not isinstance(value, dict):
                continue
            if name == "required" and asked:
                continue  # a request that says more than it has to is taken as before
            if name not in now:
                yield f"{where}/{name} is gone"
            else:
                yield from self._lost(value, now[name], f"{where}/{name}")


def found(reference: str, document: dict[str, Any]) -> Any:
    """What `#/components/...` names."""
    at: Any = document
    for part in reference.removeprefix("#/").split("/"):
        at = at[part]
    return at


def test_what_a_request_may_leave_out_is_no_loss_and_what_it_must_say_is() -> None:
    operation = ("paths", "/v1/models/{model}/patch", "requestBody", "content", "application/json", "schema")

    def document(required: list[str]) -> dict[str, Any]:
        found: dict[str, Any] = {"type": "object", "required": required}
        for name in reversed(operation):
            found = {name: found}
        return found

    assert Comparison(document(["budget"]), document([])).lost() == []
    assert len(Comparison(document(["budget"]), document(["budget", "decoder"])).lost()) == 1


def test_nothing_that_was_promised_is_gone() -> None:
    assert [
        one for one in Comparison(EARLIER, create_app().openapi()).lost() if not one.endswith(tuple(KNOWINGLY))
    ] == []


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (("paths", "/v1/models"), "paths//v1/models is gone"),
        (("paths", "/v1/models/{model}/predict", "post", "responses", "503"), "/503 is gone"),
        (("components", "schemas", "JobPage", "properties", "next"), "/properties/next is gone"),
    ],
)
def test_what_would_be_lost_is_found(path: tuple[str, ...], expected: str) -> None:
    harmed = json.loads(json.dumps(EARLIER))
    at = harmed
    for part in path[:-1]:
        at = at[part]
    del at[path[-1]]
    assert any(one.endswith(expected) for one in Comparison(EARLIER, harmed).lost())
