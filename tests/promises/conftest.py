"""One running whole for all the promises that can share it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.promises.stack import Stack, started


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Two replicas and a worker; each test makes models of its own."""
    with started(tmp_path_factory.mktemp("stack")) as stack:
        yield stack
