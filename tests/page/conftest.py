"""Fixtures: a browser for the whole run, and folders of images to drop."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from testing.data.digits import png
from tests.page.browser import CHROMIUM, chromium


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give these tests time on a busy machine too."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent) and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(900))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, for all tests of a file; each visits with a context of its own.

    Playwright keeps an event loop running in the thread, beside which no other test could begin one.
    """
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on this machine")
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tasks as folders of classes, `low` and `mid`, and images to ask about."""
    folder = tmp_path_factory.mktemp("folders")
    for task, digits in {"low": (0, 1), "mid": (2, 3)}.items():
        for digit in digits:
            place = folder / task / f"digit-{digit}"
            place.mkdir(parents=True)
            for number in range(40):
                (place / f"{number:03}.png").write_bytes(png(digit, number))
    (folder / "asked").mkdir()
    for digit in range(4):
        (folder / "asked" / f"digit-{digit}.png").write_bytes(png(digit, 100))
    return folder
