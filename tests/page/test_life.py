"""Test of a model's life in the browser, with keys, below a path prefix; the service dies once."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Browser, Page, expect

from tests.page.browser import PATIENCE_MS, Visit, visiting
from tests.page.stand import Stand, standing

expect.set_options(timeout=PATIENCE_MS)


def create(page: Page, name: str) -> None:
    """Make a small grey model."""
    page.get_by_role("link", name="New model").or_(page.get_by_role("button", name="Make a model")).first.click()
    page.locator("[name=name]").fill(name)
    page.get_by_label("Plain layers (mlp)").check()
    page.locator("[name=channels]").select_option("1")
    page.locator("[name=size]").select_option("own")
    page.get_by_label("Height").fill("8")
    page.get_by_label("Width").fill("8")
    page.get_by_role("button", name="Make the model").click()
    expect(page.get_by_text("Drop a folder, or an archive")).to_be_visible()


def teach(visit: Visit, folder: Path) -> None:
    """Drop a folder, look at what is found in it, and have it learned."""
    page = visit.page
    expect(page.get_by_text("Drop a folder, or an archive")).to_be_visible()
    visit.drop(".drop", folder)
    expect(page.get_by_text("2 classes, 80 images")).to_be_visible()
    expect(page.get_by_text("Looking at the images")).to_have_count(0)
    expect(page.get_by_text("About 4 images of a class are held out")).to_be_visible()
    page.get_by_label("Quick").check()
    expect(page.locator("[name=task]")).to_have_value(folder.name)
    page.get_by_role("button", name="Learn it").click()
    expect(page.get_by_role("heading", name=folder.name, level=1)).to_be_visible()


def ask(page: Page, image: Path) -> None:
    """Ask about one image."""
    page.set_input_files("input[data-for=files]", image)


def test_a_model_lives_in_the_browser_alone(browser: Browser, folders: Path, tmp_path: Path) -> None:
    with standing(tmp_path, keys="required") as stand, visiting(browser) as visit:
        page = visit.page
        page.goto(stand.address)
        give_key(page, stand.key("chief", "admin"))
        expect(page.get_by_text("No model yet")).to_be_visible()
        create(page, "parts")

        teach(visit, folders / "low")
        expect(page.get_by_text("Version 1 of parts answers now")).to_be_visible()
        expect(page.get_by_text("Recall of each class")).to_be_visible()
        expect(page.locator(".log li").filter(has_text="running")).to_have_count(1)
        expect(page.locator(".log li").filter(has_text="Training its network")).to_have_count(1)
        assert visit.faults() == []

        visit.go("/models/parts/teach")
        expect(page.get_by_text("Drop a folder, or an archive")).to_be_visible()
        outage(stand, visit, folders / "mid")
        expect(page.get_by_text("Version 2 of parts answers now")).to_be_visible()

        answered(page, visit, folders)
        lost(page, visit)
        darkened(page)
        went_back(page, visit)
        certified(page, visit)


def give_key(page: Page, key: str) -> None:
    expect(page.get_by_role("dialog")).to_be_visible()
    page.locator("[name=key]").fill("engram_wrong_key")
    page.get_by_role("button", name="Use this key").click()
    expect(page.get_by_text("not known")).to_be_visible()
    page.locator("[name=key]").fill(key)
    page.get_by_role("button", name="Use this key").click()


def outage(stand: Stand, visit: Visit, folder: Path) -> None:
    """Teach while the service is away: the page waits, and sends it once the service is back."""
    page = visit.page
    visit.drop(".drop", folder)
    expect(page.get_by_text("2 classes, 80 images")).to_be_visible()
    page.get_by_label("Quick").check()
    page.get_by_text("Publish it only if").click()
    page.get_by_label("Every class is found at least").fill("90")
    expect(page.get_by_text("only about 4 of a class are held out")).to_be_visible()
    page.get_by_label("Every class is found at least").fill("")
    stand.end()
    page.get_by_role("button", name="Learn it").click()
    expect(page.get_by_text("The service does not answer")).to_be_visible()
    stand.begin()
    expect(page.get_by_text("The service does not answer")).to_have_count(0)
    expect(page.get_by_role("heading", name=folder.name, level=1)).to_be_visible()
    stand.end()  # while its events are followed
    stand.begin()
    assert len(stand.vault.jobs.list("parts", before=None, limit=10)) == 2, "it was submitted once"


def answered(page: Page, visit: Visit, folders: Path) -> None:
    visit.go("/models/parts/try")
    expect(page.get_by_role("heading", level=1)).to_be_focused()
    ask(page, folders / "asked" / "digit-2.png")
    card = page.get_by_role("article")
    expect(card.locator("h2")).to_be_visible()
    expect(card.get_by_alt_text("Heatmap", exact=False)).to_be_visible()
    card.get_by_label("Heatmap for").select_option(label="digit-0")
    expect(card.get_by_alt_text("Heatmap: what spoke for digit-0", exact=False)).to_be_visible()
    assert card.get_by_alt_text("Heatmap", exact=False).evaluate(
        "image => image.decode().then(() => image.naturalWidth)"
    )
    assert visit.faults() == []


def lost(page: Page, visit: Visit) -> None:
    """Addresses of screens that there are not: it is said, and leads back."""
    for place, said in (
        ("anything", "There is no such screen"),
        ("tasks/none", "There is no task none"),
        ("versions/x", "There is no such screen"),
        ("try/more", "There is no such screen"),
    ):
        visit.go(f"/models/parts/{place}")
        expect(page.get_by_role("heading", name=said)).to_be_visible()
    visit.go("/models/none")
    expect(page.get_by_role("heading", name="There is no model none")).to_be_visible()
    visit.go("/models/parts/anything")
    page.get_by_role("link", name="To the overview of parts").click()
    expect(page.locator(".slab")).to_have_count(2)


def darkened(page: Page) -> None:
    """The colours change with the first click already, whatever the system's are."""
    page.emulate_media(color_scheme="light")
    for shown in ("dark", "light"):
        page.get_by_role("button", name="Colours").click()
        expect(page.locator("html")).to_have_attribute("data-theme", shown)


def went_back(page: Page, visit: Visit) -> None:
    visit.go("/models/parts/versions")
    expect(page.locator(".commit")).to_have_count(3)
    page.locator(".commit").nth(1).get_by_role("button", name="Go back to it").click()
    page.get_by_role("dialog").get_by_role("button", name="Go back to it").click()
    expect(page.locator(".commit")).to_have_count(4)
    expect(page.locator(".commit.active")).to_contain_text("answers as version 1")
    visit.go("/models/parts")
    expect(page.locator(".slab")).to_have_count(1)
    expect(page.get_by_text("more tasks like those here")).to_be_visible()
    visit.go("/models/parts/versions")
    page.locator(".commit").nth(1).get_by_role("button", name="Go back to it").click()
    page.get_by_role("dialog").get_by_role("button", name="Go back to it").click()
    expect(page.locator(".commit.active")).to_contain_text("answers as version 2")
    page.locator("main").get_by_role("link", name="job", exact=True).last.click()
    expect(page.get_by_text("Learned as version 1. Now version 4 of parts answers.")).to_be_visible()


def certified(page: Page, visit: Visit) -> None:
    visit.go("/models/parts/versions/4")
    page.get_by_role("button", name="Check it now").click()
    expect(page.get_by_text("agrees with the certificates of all other versions")).to_be_visible()
    expect(page.get_by_role("row").filter(has_text="low")).to_contain_text("1–3")
