"""Pictures of the screens for the documentation, and what axe-core says of each."""

from __future__ import annotations

import io
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, expect

from service.cli.digits import DigitsTask, tasks
from testing.servers.service import wait_until
from tests.page.browser import PATIENCE_MS, Visit, visiting
from tests.page.stand import Stand, standing
from tests.repository.layout import ROOT
from vault.coordination.novelty_board import SPAN_SECONDS, SPANS, SpanCounts

PICTURES = ROOT / "docs" / "pictures"
MOST_BYTES = 100_000
WIDE = {"width": 1280, "height": 860}
NARROW = {"width": 390, "height": 844}
MOST_PIXELS = {"wide": 1500, "narrow": 1700}
"""Height of a picture at most."""
MODEL = "digits"
KEPT = frozenset(
    {
        *("models-light", "models-dark-narrow", "new-light", "model-light", "model-dark", "model-light-narrow"),
        *("try-light", "try-dark", "try-dark-narrow", "teach-light", "teach-light-narrow", "job-light", "job-dark"),
        *("versions-light", "certificate-dark", "novelty-light"),
    }
)
"""Those that the documentation has; the others are looked at for faults alone."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    """A service with the demo's model of handwritten digits, and others beside it."""
    with standing(tmp_path_factory.mktemp("pictures"), keys="off") as stand:
        service = stand.service
        shape = {"channels": 1, "height": 28, "width": 28}
        for name in (MODEL, "line-3-screws", "x-ray", "leaf-disease"):
            service.client.post("/v1/models", json={"name": name, "backbone": "cnn", "input": shape}).raise_for_status()
        for task in tasks()[:4]:
            learn(stand, MODEL, task)
        learn(stand, "x-ray", tasks()[4])
        images = [("image", ("a.png", image, "image/png")) for task in tasks()[:4] for image, _ in task.held_out]
        for at in range(0, len(images), 32):
            service.client.post(f"/v1/models/{MODEL}/predict", files=images[at : at + 32]).raise_for_status()
        lived(stand)
        yield stand


def lived(stand: Stand) -> None:
    """Give the model a day of images, of which more are unknown from an hour ago on."""
    now = int(time.time() // SPAN_SECONDS)
    chance = random.Random(7)
    unknown = {now - ago: round(chance.uniform(0, 6) + (20 if ago < 12 else 0)) for ago in range(1, SPANS)}
    counts = {span: SpanCounts(200, one) for span, one in unknown.items()}
    assert stand.vault.novelty.count({stand.vault.models.get(MODEL).lineage: counts})


def learn(stand: Stand, model: str, task: DigitsTask) -> None:
    client = stand.service.client
    files = {"data": ("data.zip", task.archive)}
    sent = client.post(f"/v1/models/{model}/tasks", data={"name": task.name}, files=files)
    where = sent.raise_for_status().headers["Location"]
    wait_until(lambda: client.get(where).json()["state"] not in ("queued", "running"), 600)
    assert client.get(where).json()["state"] == "succeeded"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A task to teach in which something is wrong, and images to ask about."""
    folder = tmp_path_factory.mktemp("images")
    last = tasks()[4]
    for label in ("eight", "nine"):
        place = folder / "eight-nine" / label
        place.mkdir(parents=True)
        images = [image for image, truth in last.held_out if truth == label]
        for number, image in enumerate(images if label == "eight" else images[:12]):
            (place / f"{number:03}.png").write_bytes(image)
    (folder / "eight-nine" / "nine" / "copy.png").write_bytes((folder / "eight-nine" / "nine" / "000.png").read_bytes())
    Image.new("L", (28, 28)).save(folder / "eight-nine" / "eight" / "blank.png")
    for task in tasks()[1:3]:
        image, label = task.held_out[0]
        (folder / f"{label}.png").write_bytes(image)
    stranger, _ = tasks()[4].held_out[0]
    (folder / "eight.png").write_bytes(stranger)
    return folder


def take(visit: Visit, name: str, width: str) -> None:
    """Write a picture of the screen that is shown, and look for faults in it."""
    page = visit.page
    page.evaluate("document.activeElement?.blur(); scrollTo(0, 0)")
    page.wait_for_timeout(500)
    assert visit.faults() == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{name} is wider than the screen"
    if name not in KEPT:
        return
    height = min(int(page.evaluate("document.documentElement.scrollHeight")), MOST_PIXELS[width])
    seen = page.viewport_size
    assert seen is not None, "its size was given"
    page.set_viewport_size({"width": seen["width"], "height": height})
    image = Image.open(io.BytesIO(page.screenshot()))
    page.set_viewport_size(seen)
    for quality in (88, 75, 60):
        image.save(PICTURES / f"{name}.webp", quality=quality, method=6)
        if (PICTURES / f"{name}.webp").stat().st_size <= MOST_BYTES:
            return
    raise AssertionError(f"{name} is too large")


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_wide(stand: Stand, folder: Path, browser: Browser, colours: str) -> None:
    with visiting(browser, viewport=WIDE, color_scheme=colours) as visit:
        walk(visit, stand, folder, colours, "wide")


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_narrow(stand: Stand, folder: Path, browser: Browser, colours: str) -> None:
    with visiting(browser, viewport=NARROW, color_scheme=colours, has_touch=True, device_scale_factor=1) as visit:
        walk(visit, stand, folder, colours, "narrow")


def walk(visit: Visit, stand: Stand, folder: Path, colours: str, width: str) -> None:
    """Show each screen in turn, and take its picture."""
    page, where = visit.page, f"{colours}" if width == "wide" else f"{colours}-narrow"
    page.goto(stand.address)
    expect(page.get_by_role("link", name="x-ray")).to_be_visible()
    take(visit, f"models-{where}", width)

    visit.go(f"/models/{MODEL}")
    expect(page.locator(".slab")).to_have_count(4)
    expect(page.get_by_role("row").filter(has_text="zero-one")).to_contain_text("%")
    take(visit, f"model-{where}", width)

    visit.go(f"/models/{MODEL}/try")
    page.set_input_files("input[data-for=files]", sorted(folder.glob("*.png")))
    expect(page.get_by_alt_text("Heatmap", exact=False)).to_have_count(3)
    take(visit, f"try-{where}", width)

    visit.go(f"/models/{MODEL}/teach")
    page.set_input_files("input[data-for=folder]", folder / "eight-nine")
    expect(page.get_by_text("of a single colour")).to_be_visible()
    take(visit, f"teach-{where}", width)

    job = stand.vault.jobs.list(MODEL, before=None, limit=1)[0].id
    visit.go(f"/jobs/{job}")
    expect(page.get_by_text("Recall of each class")).to_be_visible()
    take(visit, f"job-{where}", width)

    visit.go(f"/models/{MODEL}/versions")
    expect(page.locator(".commit")).to_have_count(5)
    take(visit, f"versions-{where}", width)

    visit.go(f"/models/{MODEL}/versions/4")
    page.get_by_role("button", name="Check it now").click()
    expect(page.get_by_text("agrees with the certificates")).to_be_visible()
    take(visit, f"certificate-{where}", width)

    visit.go(f"/models/{MODEL}/novelty")
    expect(page.get_by_text("Images answered")).to_be_visible()
    page.wait_for_timeout(5000)
    take(visit, f"novelty-{where}", width)

    visit.go("/new")
    expect(page.get_by_role("heading", name="New model")).to_be_visible()
    take(visit, f"new-{where}", width)
    for place in ("jobs", "backbones"):
        visit.go(f"/{place}")
        page.wait_for_timeout(800)
        assert visit.faults() == []
