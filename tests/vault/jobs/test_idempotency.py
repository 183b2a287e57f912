"""Tests of idempotency records."""

from __future__ import annotations

import pytest

from testing.processes.races import race
from vault.errors import Damaged
from vault.jobs.idempotency import IdempotencyRecords, RecordedAnswer
from vault.jobs.ids import is_job_id
from vault.vault import Vault

NAME = "a" * 64


def test_of_racing_claims_one_stands(vault: Vault) -> None:
    records = IdempotencyRecords(vault.objects)
    assert records.claimed(NAME) is None
    claims = race(8, lambda number: records.claim(NAME, str(number)))
    assert len(set(claims)) == 1
    assert is_job_id(claims[0].id)
    assert records.claimed(NAME) == claims[0]
    assert records.claim("b" * 64, "x").id != claims[0].id


def test_of_racing_answers_one_stands(vault: Vault) -> None:
    records = IdempotencyRecords(vault.objects)
    assert records.answer(NAME) is None
    answers = race(8, lambda number: records.keep(NAME, RecordedAnswer("x", 202, {"location": "/"}, str(number))))
    assert len({answer.body for answer in answers}) == 1
    assert records.answer(NAME) == answers[0]


def test_a_claim_that_is_swept_while_it_is_claimed_is_made_anew(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    records = IdempotencyRecords(vault.objects)
    old = records.claim(NAME, "x")
    put_new = vault.objects.put_new

    def put_late(path: str, data: bytes) -> None:
        monkeypatch.undo()
        try:
            put_new(path, data)
        finally:
            vault.objects.delete(path)

    monkeypatch.setattr(vault.objects, "put_new", put_late)
    new = records.claim(NAME, "x")
    assert new.id != old.id
    assert records.claimed(NAME) == new


@pytest.mark.parametrize("kind", ["claim", "answer"])
def test_a_damaged_record_is_named(vault: Vault, kind: str) -> None:
    path = f"idempotency/{NAME}/{kind}.json"
    vault.objects.put(path, b"{}")
    records = IdempotencyRecords(vault.objects)
    with pytest.raises(Damaged, match=path):
        records.claimed(NAME) if kind == "claim" else records.answer(NAME)
