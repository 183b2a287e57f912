"""Test of the list of models when there are many."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from testing.data.models import create
from testing.servers.service import wait_until
from tests.page.browser import PATIENCE_MS, visiting
from tests.page.stand import standing

MODELS = 200
MOST_MS = 300
WATCH = """
window.shownAt = null;
new MutationObserver(() => {
  if (window.shownAt === null && document.querySelectorAll("tbody tr").length >= %d) window.shownAt = performance.now();
}).observe(document, { childList: true, subtree: true });
"""
TOOK = """
() => {
  const asked = performance.getEntriesByType("resource").filter((one) => one.name.includes("/v1/summary"));
  return window.shownAt - asked[0].responseEnd;
}
"""


@pytest.mark.slow
def test_two_hundred_models_are_shown_at_once(browser: Browser, tmp_path: Path) -> None:
    with standing(tmp_path, keys="off") as stand, visiting(browser) as visit:
        for number in range(MODELS):
            create(stand.vault, f"model-{number:03}")
        client = stand.service.client
        wait_until(lambda: len(client.get("/v1/summary?limit=500").json()["models"]) == MODELS)
        visit.page.add_init_script(WATCH % MODELS)
        visit.page.goto(stand.address)
        expect(visit.page.locator("tbody tr")).to_have_count(MODELS, timeout=PATIENCE_MS)
        took = visit.page.evaluate(TOOK)
        print(f"{MODELS} models: {took:.0f} ms after their data")
        assert took < MOST_MS
