"""Tests of the screens for keys, the audit log and evaluation, where the service has them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, expect

from service.app import create_app
from tests.page.browser import PATIENCE_MS, Visit, visiting
from tests.page.stand import Stand, standing
from tests.page.test_life import ask, create, give_key, teach

expect.set_options(timeout=PATIENCE_MS)

pytestmark = pytest.mark.slow


@pytest.fixture
def visit(browser: Browser, tmp_path: Path) -> Iterator[tuple[Visit, Stand]]:
    """A visitor with a key for everything."""
    with standing(tmp_path, keys="required") as stand, visiting(browser) as visit:
        visit.page.goto(stand.address)
        give_key(visit.page, stand.key("chief", "admin"))
        expect(visit.page.get_by_text("No model yet")).to_be_visible()
        yield visit, stand


def needs(path: str) -> None:
    """Skip where the service has no such path."""
    if path not in create_app().openapi()["paths"]:
        pytest.skip(f"the service has no {path}")


def test_a_key_is_made_shown_once_and_revoked(visit: tuple[Visit, Stand]) -> None:
    needs("/v1/keys")
    page = visit[0].page
    page.get_by_role("link", name="Keys").click()
    page.get_by_role("button", name="Make a key").click()
    page.locator("[name=name]").fill("camera")
    page.locator("[name=until]").fill("2099-12-31")
    page.get_by_role("button", name="Make it").click()
    secret = page.locator(".secret").inner_text()
    assert secret.startswith("engram_")
    assert visit[0].faults() == []
    page.get_by_role("button", name="I have it").click()
    expect(page.get_by_text(secret)).to_have_count(0)
    row = page.get_by_role("row").filter(has_text="camera")
    expect(row).to_contain_text("in force")
    expect(row).to_contain_text("2099")
    row.get_by_role("button", name="Revoke").click()
    page.get_by_role("dialog").get_by_role("button", name="Revoke").click()
    expect(row).to_contain_text("revoked")
    page.get_by_role("row").filter(has_text="chief").get_by_role("button", name="Revoke").click()
    expect(page.get_by_role("dialog")).to_contain_text("It is the key of this tab")
    expect(page.get_by_role("dialog")).to_contain_text("No other key may administer")
    page.get_by_role("dialog").get_by_role("button", name="Leave it").click()
    page.get_by_role("link", name="Audit").click()
    page.get_by_label("What was done").select_option("rename")
    expect(page.get_by_text("Nothing here")).to_be_visible()
    page.get_by_label("What was done").select_option("revoke_key")
    expect(page.get_by_role("row").filter(has_text="revoke key")).to_contain_text("key camera")


def test_the_first_key_administers(browser: Browser, tmp_path: Path) -> None:
    with standing(tmp_path) as stand, visiting(browser) as visit:
        page = visit.page
        page.goto(f"{stand.service.url}/ui/#/keys")
        page.get_by_role("button", name="Make a key").click()
        expect(page.get_by_label("Ask predict")).to_be_disabled()
        page.locator("[name=name]").fill("chief")
        page.get_by_role("button", name="Make it").click()
        expect(page.locator(".asker")).to_have_text("chief admin")
        page.get_by_role("button", name="Forget key").click()
        page.locator("[name=key]").fill("engram_wrong_key")
        page.get_by_role("button", name="Use this key").click()
        expect(page.get_by_text("not known")).to_be_visible()
        page.get_by_role("button", name="Not now").click()
        expect(page.get_by_role("button", name="Use a key")).to_be_visible()


def test_who_did_what_is_listed(visit: tuple[Visit, Stand]) -> None:
    needs("/v1/audit")
    page = visit[0].page
    create(page, "parts")
    page.get_by_role("link", name="Audit").click()
    row = page.get_by_role("row").filter(has_text="parts")
    expect(row).to_contain_text("create")
    expect(row).to_contain_text("chief")
    assert visit[0].faults() == []


def test_two_versions_are_compared(visit: tuple[Visit, Stand], folders: Path) -> None:
    needs("/v1/models/{model}/evaluate")
    page = visit[0].page
    create(page, "parts")
    for task in ("low", "mid"):
        visit[0].go("/models/parts/teach")
        teach(visit[0], folders / task)
        expect(page.get_by_text("of parts answers now")).to_be_visible()
    visit[0].go("/models/parts/evaluate")
    expect(page.get_by_text("Drop labelled images")).to_be_visible()
    visit[0].drop(".drop", folders / "mid")
    expect(page.locator("main").get_by_text("80 images of 2 classes")).to_be_visible()
    page.locator("[name=other]").select_option("1")
    page.get_by_role("button", name="Evaluate").click()
    expect(page.get_by_text("80 images answered")).to_be_visible()
    expect(page.get_by_role("heading", name="Version 1")).to_be_visible()
    expect(page.get_by_text("It has learned the classes of 0 of the 80 images")).to_be_visible()
    expect(page.get_by_text("answered differently").or_(page.get_by_text("answer alike"))).to_be_visible()
    assert visit[0].faults() == []
    rename(visit[0], folders)


def rename(visit: Visit, folders: Path) -> None:
    """Give a task and a label other names, and see them in an answer."""
    page, dialog = visit.page, visit.page.get_by_role("dialog")
    visit.go("/models/parts/tasks/low")
    page.get_by_role("button", name="Rename").click()
    expect(dialog.get_by_role("button", name="Rename")).to_be_disabled()
    dialog.get_by_label("Task").fill("mid")
    dialog.get_by_role("button", name="Rename").click()
    expect(dialog.get_by_text("task_exists")).to_be_visible()
    assert visit.faults() == []
    dialog.get_by_label("Task").fill("small")
    dialog.get_by_label("digit-1").fill("one")
    dialog.get_by_role("button", name="Rename").click()
    expect(page.get_by_role("row").filter(has_text="small")).to_contain_text("digit-0, one")
    page.get_by_role("link", name="small").first.click()
    expect(page.get_by_text("Learned as low: digit-0, digit-1")).to_be_visible()
    expect(page.locator(".share-name").filter(has_text="one")).to_be_visible()
    visit.go("/models/parts/versions")
    expect(page.locator(".commit.active")).to_contain_text("renamed low to small, digit-1 to one")
    visit.go("/models/parts/try")
    page.locator("[name=task]").select_option("small")
    ask(page, folders / "asked" / "digit-1.png")
    expect(page.get_by_role("article").locator("h2")).to_have_text("one")
    expect(page.get_by_alt_text("Heatmap: what spoke for one", exact=False)).to_be_visible()


def test_what_waits_can_be_tried(visit: tuple[Visit, Stand], folders: Path) -> None:
    page, stand = visit[0].page, visit[1]
    create(page, "parts")
    headers = {"Authorization": f"Bearer {stand.key('second', 'admin')}"}
    changed = httpx.patch(f"{stand.service.url}/v1/models/parts", json={"publish": "manual"}, headers=headers)
    changed.raise_for_status()
    visit[0].go("/models/parts/teach")
    visit[0].drop(".drop", folders / "low" / "digit-0")
    expect(page.get_by_role("list", name="Findings")).to_contain_text("The first task of a model mostly needs two")
    visit[0].go("/models/parts")
    visit[0].go("/models/parts/teach")
    teach(visit[0], folders / "low")
    expect(page.get_by_text("Learned as a candidate")).to_be_visible()
    visit[0].go("/models/parts")
    expect(page.get_by_text("Version 2 has learned, and waits until somebody activates it")).to_be_visible()
    visit[0].go("/models/parts/versions")
    page.locator(".commit.candidate").get_by_role("link", name="Try it").click()
    expect(page.locator("[name=version]")).to_have_value("2")
    ask(page, folders / "asked" / "digit-1.png")
    card = page.get_by_role("article")
    expect(card.locator("h2")).to_have_text("digit-1")
    expect(card.get_by_alt_text("Heatmap: what spoke for digit-1", exact=False)).to_be_visible()
    card.get_by_label("Heatmap for").select_option(label="digit-0")
    expect(card.get_by_alt_text("Heatmap: what spoke for digit-0", exact=False)).to_be_visible()
    assert visit[0].faults() == []
    visit[0].go("/models/parts/versions")
    page.get_by_role("button", name="Activate").click()
    page.get_by_role("dialog").get_by_role("button", name="Activate").click()
    expect(page.locator(".commit.active")).to_contain_text("answers as version 2")
    expect(page.get_by_role("button", name="Go back to it")).to_have_count(0)  # which would change nothing
    visit[0].go("/models/parts/teach")
    teach(visit[0], folders / "mid")
    expect(page.get_by_text("Learned as a candidate")).to_be_visible()
    page.get_by_role("link", name="To the versions").click()
    page.locator(".commit.candidate").get_by_role("link", name="Evaluate").click()
    expect(page.locator("[name=one]")).to_have_value("3")
    expect(page.locator("[name=other]")).to_have_value("4")


def test_a_key_is_offered_what_it_may_do(visit: tuple[Visit, Stand], browser: Browser, folders: Path) -> None:
    (chief, stand), bar = visit, "header nav"
    create(chief.page, "parts")
    teach(chief, folders / "low")
    expect(chief.page.get_by_text("Version 1 of parts answers now")).to_be_visible()
    with visiting(browser) as other:
        page = other.page
        page.goto(stand.address)
        give_key(page, stand.key("camera", "predict"))
        expect(page.locator(".asker")).to_have_text("camera predict")
        expect(page.get_by_role("link", name="parts")).to_be_visible()
        expect(page.get_by_role("link", name="New model")).to_have_count(0)
        expect(page.locator(bar)).to_have_text(re.compile(r"^\s*Models\s*Backbones\s*$"))
        other.go("/models/parts")
        expect(page.locator(".slab")).to_have_count(1)
        expect(page.locator(".tabs")).to_have_text(re.compile(r"^\s*Overview\s*Try it\s*Versions\s*Novelty\s*$"))
        expect(page.locator("main button")).to_have_count(0)
        other.go("/models/parts/teach")
        expect(page.get_by_text("Teaching takes a key with the scope learn; camera has predict")).to_be_visible()
        assert other.faults() == []
        other.go("/models/parts/versions")
        expect(page.locator(".commit")).to_have_count(2)
        expect(page.locator(".commit button")).to_have_count(0)
        page.get_by_role("button", name="Forget key").click()
        page.locator("[name=key]").fill(stand.key("teacher", "learn"))
        page.get_by_role("button", name="Use this key").click()
        expect(page.locator(".asker")).to_have_text("teacher learn")
        expect(page.get_by_role("link", name="Teach", exact=True)).to_be_visible()
        expect(page.get_by_role("link", name="Jobs")).to_be_visible()
        expect(page.get_by_role("link", name="Keys")).to_have_count(0)
