"""Tests of answers as records, and of the families of refusals."""

from __future__ import annotations

import re
from typing import Any

import pytest
from engram_client import UnexpectedAnswer
from engram_client.errors import (
    AccessRefused,
    DataRefused,
    LimitReached,
    RequestRefused,
    ServiceBusy,
    ServiceFailed,
    StateRefused,
    UnknownName,
    family,
)
from engram_client.records import ImageAnswer, JobRecord

from tests.repository.layout import ROOT

JOB: dict[str, Any] = {"id": "1", "model": "m", "task": "t", "state": "failed", "created_at": "now"}


def test_what_is_not_known_yet_is_kept() -> None:
    job = JobRecord.read({**JOB, "error": {"code": "a", "detail": "b", "more": 1}, "later": [1]})
    assert job.error is not None
    assert (job.error.code, job.over, job.version) == ("a", True, None)
    assert job.raw["later"] == [1]
    assert job.error.raw["more"] == 1
    assert JobRecord.read({**JOB, "later": 2}) == JobRecord.read(JOB)


def test_nested_answers_are_records() -> None:
    candidate = {"task": "t", "label": "l", "probability": 0.5}
    answer = ImageAnswer.read({**candidate, "task_probability": 1.0, "top": [candidate], "model": "m", "version": 1})
    assert (answer.top[0].label, answer.top[0].tasks, answer.known) == ("l", (), None)


@pytest.mark.parametrize("answer", [{"id": "1"}, [], None, "text"])
def test_what_is_no_answer_is_refused(answer: object) -> None:
    with pytest.raises(UnexpectedAnswer, match="JobRecord"):
        JobRecord.read(answer)


def documented() -> list[tuple[str, str, int]]:
    """Section, code and status of every refusal that docs/errors.md lists."""
    text = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    found = []
    for section in text.split("\n## ")[1:]:
        rows = re.findall(r"^\| `(\w+)` \| (\d{3}) \|", section, re.MULTILINE)
        found += [(section.splitlines()[0], code, int(status)) for code, status in rows]
    return found


@pytest.mark.parametrize(("section", "code", "status"), documented())
def test_every_code_has_its_family(section: str, code: str, status: int) -> None:
    by_status = {
        401: AccessRefused,
        403: AccessRefused,
        404: UnknownName,
        409: StateRefused,
        421: AccessRefused,
        429: LimitReached,
        500: ServiceFailed,
        503: ServiceBusy,
    }
    expected = DataRefused if section == "Images and archives" else by_status.get(status, RequestRefused)
    assert family(code, status) is expected


def test_a_code_of_a_later_release_has_a_family() -> None:
    assert family("brand_new", 409) is StateRefused
    assert family("brand_new", 418) is RequestRefused
    assert family("brand_new", 507) is ServiceFailed
