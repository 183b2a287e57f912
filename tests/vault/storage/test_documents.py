"""Tests of sealed JSON documents."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vault.errors import Damaged, Unreadable, UnsupportedRecord
from vault.storage.documents import FORMAT, seal, unseal

PATH = "jobs/1/request.json"
DOCUMENT = {"model": "a", "n": 1, "share": 0.25, "tasks": [{"name": "b", "classes": ["ä"]}], "none": None}

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text().filter(lambda key: key != "seal"), _JSON, max_size=4))
def test_what_was_sealed_is_read(document: dict[str, object]) -> None:
    try:
        data = seal(document)
    except UnicodeEncodeError:
        return  # a lone surrogate; nothing is written
    assert unseal(PATH, data) == document


def test_every_flipped_bit_is_noticed_or_changes_nothing() -> None:
    data = seal(DOCUMENT)
    named, unnoticed = set(), 0
    for place in range(len(data) * 8):
        harmed = bytearray(data)
        harmed[place // 8] ^= 1 << place % 8
        try:
            read = unseal(PATH, bytes(harmed))
        except Unreadable as error:
            named.add(error.path)
        else:
            # The bit lies in the name of the seal itself.
            unnoticed += 1
            assert {key: read[key] for key in DOCUMENT} == DOCUMENT
    assert named == {PATH}
    assert unnoticed <= 8 * len("seal")


def test_truncated_records_are_noticed() -> None:
    data = seal(DOCUMENT)
    for length in range(len(data)):
        with pytest.raises(Damaged, match=PATH):
            unseal(PATH, data[:length])


def test_records_older_than_seals_are_read() -> None:
    assert unseal(PATH, json.dumps(DOCUMENT).encode()) == DOCUMENT


def test_records_of_later_releases_are_refused_by_name() -> None:
    document = json.loads(seal(DOCUMENT))
    document["seal"]["format"] = FORMAT + 1
    with pytest.raises(UnsupportedRecord, match=rf"{PATH} .*is of format {FORMAT + 1}") as caught:
        unseal(PATH, json.dumps(document).encode())
    assert caught.value.code == "unsupported_format"


def test_records_are_of_the_first_format_unless_told() -> None:
    assert json.loads(seal(DOCUMENT))["seal"]["format"] == 1
    assert json.loads(seal(DOCUMENT, 2))["seal"]["format"] == 2
    assert unseal(PATH, seal(DOCUMENT, 2)) == DOCUMENT


@pytest.mark.parametrize("seal_value", [None, {}, {"format": "1"}, {"format": 0}, {"format": FORMAT}])
def test_what_has_no_proper_seal_is_damaged(seal_value: object) -> None:
    with pytest.raises(Damaged):
        unseal(PATH, json.dumps({**DOCUMENT, "seal": seal_value}).encode())


def test_numbers_that_json_does_not_know_become_null() -> None:
    assert unseal(PATH, seal({"a": math.inf, "b": (math.nan, 1)})) == {"a": None, "b": [None, 1]}
