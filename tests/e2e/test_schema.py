"""The interface answers as its own document says; the long form is `python -m benchmarks schema`."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from testing.drills.api_fuzzing import CONFIG, SAME_MODEL, ask, service


@pytest.fixture
def quiet() -> Iterator[None]:
    """Hundreds of refusals are no news."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.usefixtures("quiet")
def test_every_answer_is_in_the_document() -> None:
    options = ("--exclude-method", "DELETE", "--phases", "fuzzing")
    with service() as (address, key):
        found = ask(address, key, 10, 0, CONFIG + SAME_MODEL, *options)
    assert found["status"] == 0, found["said"]
    assert found["operations"] == 21
    assert found["cases"] > 150
    assert found["failures"] == {}
