"""One running whole for all the promises that can share it, and one for those that are rough with it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from testing.drills.crowd import NARROW
from testing.processes.stack import Stack, started


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give these tests, which start many processes, time on a busy machine too."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent) and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(900))


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Two replicas and a worker; each test makes models of its own."""
    with started(tmp_path_factory.mktemp("stack")) as stack:
        yield stack


@pytest.fixture(scope="session")
def rough_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One replica with little room, and a worker; a test may take its Redis away, and must bring it back."""
    with started(tmp_path_factory.mktemp("rough"), replicas=1, **NARROW) as stack:
        yield stack
