"""Running stacks shared by end-to-end tests, one of them for tests that stop its Redis."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from testing.drills.crowd import LOW_LIMITS
from testing.processes.stack import Stack, started


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give these tests, which start many processes, time on a busy machine too."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent) and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(900))


@pytest.fixture(scope="package")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Two replicas and a worker; each test creates models of its own."""
    with started(tmp_path_factory.mktemp("stack")) as stack:
        yield stack


@pytest.fixture(scope="package")
def rough_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One replica with low limits and a worker; a test may stop its Redis, and must restart it."""
    with started(tmp_path_factory.mktemp("rough"), replicas=1, **LOW_LIMITS) as stack:
        yield stack
