"""Tests of the documented error codes."""

from __future__ import annotations

import re
from pathlib import Path

from service.errors import problem_details
from tests.service.errors.test_problem_details import LOWEST

ROOT = Path(__file__).parents[2]
ROWS = re.findall(r"^\| `(\w+)` \| (\d{3}|-) \|", (ROOT / "docs/errors.md").read_text(), re.MULTILINE)
IN_PLACE = re.compile(
    r"""(?:problem\(\d{3}, |\bEndReason\(\s*|fail_job\([^"\n]*|^ {4}\d{3}: )"([a-z_]+)\""""  # codes of no class
    r"""|code = "([a-z_]+)\"""",
    re.MULTILINE,
)
INSIDE = {"not_found"}
"""Of an object in the store, 500, beside the 404 of a path: a sentence below the tables says so."""


def codes_in(package: str) -> set[str]:
    texts = (path.read_text() for path in (ROOT / package).rglob("*.py"))
    return {found[1] or found[2] for text in texts for found in IN_PLACE.finditer(text)}


def test_every_error_is_listed_with_its_status() -> None:
    listed = dict(ROWS)
    assert len(listed) == len(ROWS)
    for kind in LOWEST:
        code = getattr(kind, "code", "")
        if code not in INSIDE:
            assert (code, listed.get(code)) == (code, str(problem_details.STATUS[kind]))


def test_no_code_is_missing_or_made_up() -> None:
    used = codes_in("service") | codes_in("worker") | {"internal_error"}
    assert {"headers_too_large", "not_ready", "job_timeout", "too_many_attempts", "method_not_allowed"} <= used
    lowest = {str(getattr(kind, "code", "")) for kind in LOWEST}
    above = {"service_error", "http_error"}  # of classes above others, and of no answer that there is
    assert {code for code, _ in ROWS} == (used - above) | lowest
