"""Test of the HTTP interface against its OpenAPI document.

The long form is `python -m benchmarks schema`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from testing.drills.api_fuzzing import CONFIG, SAME_MODEL, keyed_service, run_schemathesis


@pytest.fixture
def quiet() -> Iterator[None]:
    """Logging disabled, since hundreds of requests are refused."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.usefixtures("quiet")
def test_every_answer_is_in_the_document() -> None:
    # A version without a task is rightly not ready, for which the protocol has 503.
    readiness = ("--exclude-path-regex", "^/v2/.*/ready$")
    options = ("--exclude-method", "DELETE", "--phases", "fuzzing", *readiness)
    with keyed_service() as (address, key):
        found = run_schemathesis(address, key, 10, 0, CONFIG + SAME_MODEL, *options)
    assert found["status"] == 0, found["output"]
    assert found["operations"] == 47
    assert found["cases"] > 150
    assert found["failures"] == {}
