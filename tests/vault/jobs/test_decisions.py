"""Tests of write-once decisions on jobs."""

from __future__ import annotations

import json

import pytest

from testing.processes.races import race
from vault.commit_log import Commit
from vault.errors import AlreadyExists, Damaged
from vault.jobs.decisions import Decision, JobEnding
from vault.jobs.ids import new_job_id
from vault.vault import Vault

CANCELLED = JobEnding("cancelled", {"code": "cancelled", "detail": "The job was cancelled."})


def commit(vault: Vault) -> Commit:
    found = vault.models.create("lines", {})
    return Commit.first(found, engrams=("a", "b"), recogniser="c", tasks=({"name": "zero", "classes": ["0"]},))


def test_the_last_one_counts(vault: Vault) -> None:
    job, decisions, first = new_job_id(), vault.jobs.decisions, commit(vault)
    assert decisions.last(job) is None
    decisions.create(job, published := Decision.after(None, first))
    assert decisions.last(job) == published == Decision(1, commit=first)
    decisions.create(job, ended := Decision.after(published, CANCELLED))
    assert decisions.last(job) == ended == Decision(2, ending=CANCELLED)
    assert decisions.pending() == [], "there is no such job"
    vault.objects.create_json(f"jobs/{job}/request.json", {})
    paths = [f"jobs/{job}/decisions/000{number}.json" for number in (1, 2)]
    assert decisions.pending() == [(job, path) for path in paths]
    assert [decisions.commit(path) for path in paths] == [first, None]
    vault.objects.create_json(f"jobs/{job}/result.json", {})
    assert decisions.pending() == [], "it is over"


def test_one_on_a_commit_that_decodes_otherwise_is_refused_by_earlier_releases(vault: Vault) -> None:
    job, decisions, first = new_job_id(), vault.jobs.decisions, commit(vault)
    named = first.following("learn", decoding={"decoder": 2, "background": None})
    decisions.create(job, last := Decision.after(Decision.after(None, first), named))
    decisions.create(job, Decision.after(None, first))
    assert decisions.last(job) == last
    records = [vault.objects.get(f"jobs/{job}/decisions/000{number}.json") for number in (1, 2)]
    assert [json.loads(record)["seal"]["format"] for record in records] == [1, 2]


def test_of_many_at_the_same_time_one_decides(vault: Vault) -> None:
    job, decisions = new_job_id(), vault.jobs.decisions

    def decide(number: int) -> JobEnding | None:
        ending = JobEnding("failed", {"code": str(number)})
        try:
            decisions.create(job, Decision.after(None, ending))
        except AlreadyExists:
            return None
        return ending

    (decided,) = filter(None, race(8, decide))
    assert decisions.last(job) == Decision(1, ending=decided)


@pytest.mark.parametrize(
    "harmed", [b"{", b"{}", b'{"ending": {"state": "failed"}}', b'{"commit": {}}', b'{"ending": 1}']
)
def test_one_that_is_damaged_has_a_number(vault: Vault, harmed: bytes) -> None:
    """The job can still end."""
    job, decisions = new_job_id(), vault.jobs.decisions
    decisions.create(job, Decision.after(None, commit(vault)))
    vault.objects.put(f"jobs/{job}/decisions/0002.json", harmed)
    last = decisions.last(job)
    assert last == Decision(2)
    decisions.create(job, Decision.after(last, CANCELLED))
    assert decisions.last(job) == Decision(3, ending=CANCELLED)
    with pytest.raises(Damaged):
        decisions.commit(f"jobs/{job}/decisions/0002.json")


@pytest.mark.parametrize("blobs", [{"engrams": [5]}, {"kept": [["x"]]}, {"report": 1}])
def test_blobs_of_a_commit_are_named_by_text(vault: Vault, blobs: dict[str, object]) -> None:
    job = new_job_id()
    vault.objects.create_json(f"jobs/{job}/decisions/0001.json", {"commit": commit(vault).to_dict() | blobs})
    with pytest.raises(Damaged):
        vault.jobs.decisions.commit(f"jobs/{job}/decisions/0001.json")
