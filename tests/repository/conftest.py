"""The end of the parsed files: a million objects that no other test is to collect garbage around."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.repository.layout import tree_of


@pytest.fixture(scope="package", autouse=True)
def _parsed_here_only() -> Iterator[None]:
    yield
    tree_of.cache_clear()
