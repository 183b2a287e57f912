"""Tests of what the page does with files before it sends them, and with events, in a browser."""

from __future__ import annotations

import base64
import io
import tarfile
import zipfile
from collections.abc import Iterator
from typing import Any, Literal

import pytest
from PIL import Image
from playwright.sync_api import Browser

from service.ui.static_files import StaticPage
from testing.data.digits import png
from testing.servers.reverse_proxy import proxied
from testing.servers.service import Service
from tests.page.browser import Visit, visiting

PNG = png(0, 0)
OTHER = png(1, 0)


@pytest.fixture(scope="module")
def visit(browser: Browser, learning: Service) -> Iterator[Visit]:
    with proxied(learning.url, "/x", strips=True) as proxy, visiting(browser) as visit:
        visit.page.goto(f"{proxy}/x/ui/")
        yield visit


def called(visit: Visit, module: str, script: str, given: Any) -> Any:
    """What a script makes of `given`; `it` is one of the page's modules, `files` the bytes by path as entries."""
    address = f"./{StaticPage().digest}/{module}"
    prelude = (
        "const it = await import(new URL(where, document.baseURI));"
        "const entries = (files) => Object.entries(files).map(([path, text]) => {"
        "  const blob = new Blob([Uint8Array.from(atob(text), (one) => one.charCodeAt(0))]);"
        "  return { path, size: blob.size, read: async () => blob };"
        "});"
    )
    return visit.page.evaluate(
        "async ([where, given]) => {" + prelude + f"return (async () => {{ {script} }})(); }}", [address, given]
    )


def entries(files: dict[str, bytes]) -> dict[str, str]:
    return {path: base64.b64encode(data).decode() for path, data in files.items()}


COLLECT = """
const found = it.collect(entries(given));
return {
  classes: Object.fromEntries(found.classes.map((one) => [one.name, [one.images.length, one.validation.length]])),
  misplaced: found.misplaced.map((one) => one.path),
  others: found.others,
};
"""
LABELLED = """
const found = it.labelled(entries(given));
return [found.images.map((one) => one.path), [...found.labels].sort()];
"""


def test_a_part_for_tests_is_what_is_evaluated_on(visit: Visit) -> None:
    paths = ["x/train/a/1.png", "x/test/a/2.png", "x/test/b/3.png", "x/readme.txt"]
    images, labels = called(visit, "data/collection.js", LABELLED, entries(dict.fromkeys(paths, PNG)))
    assert (images, labels) == (["test/a/2.png", "test/b/3.png"], ["a", "b"])
    images, labels = called(visit, "data/collection.js", LABELLED, entries(dict.fromkeys(["test/a/1.png"], PNG)))
    assert (images, labels) == (["a/1.png"], ["a"])


LAYOUTS: dict[str, tuple[list[str], dict[str, list[int]], list[str], int]] = {
    "classes": (["a/1.png", "a/2.jpg", "b/1.png"], {"a": [2, 0], "b": [1, 0]}, [], 0),
    "below one more folder": (["pets/a/1.png", "pets/b/1.png"], {"a": [1, 0], "b": [1, 0]}, [], 0),
    "a single class": (["a/1.png", "a/2.png"], {"a": [2, 0]}, [], 0),
    "sets": (["train/a/1.png", "val/a/2.png", "train/b/1.png"], {"a": [1, 1], "b": [1, 0]}, [], 0),
    "sets below a folder": (["x/train/a/1.png", "x/val/a/2.png"], {"a": [1, 1]}, [], 0),
    "three parts": (["train/a/1.png", "validation/a/2.png", "test/a/3.png"], {"a": [1, 1]}, [], 0),
    "classes called as parts are": (
        ["train/1.png", "constructor/1.png"],
        {"constructor": [1, 0], "train": [1, 0]},
        [],
        0,
    ),
    "one lies elsewhere": (["a/1.png", "b/1.png", "c.png"], {"a": [1, 0], "b": [1, 0]}, ["c.png"], 0),
    "what systems leave": (["a/1.png", "a/Thumbs.db", "__MACOSX/a/._1.png", "a/notes.txt"], {"a": [1, 0]}, [], 1),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_classes_are_found_as_the_service_finds_them(visit: Visit, layout: str) -> None:
    paths, classes, misplaced, others = LAYOUTS[layout]
    found = called(visit, "data/collection.js", COLLECT, entries(dict.fromkeys(paths, PNG)))
    assert found == {"classes": classes, "misplaced": misplaced, "others": others}


PACK = """
const collection = await import(new URL(where.replace("archive.js", "collection.js"), document.baseURI));
const found = collection.packable(collection.collect(entries(given)));
const pack = () => it.pack(found, () => undefined, AbortSignal.any([]));
const bytes = async (blob) => btoa(String.fromCharCode(...new Uint8Array(await blob.arrayBuffer())));
const [one, other] = [await pack(), await pack()];
const seen = await it.entriesOf(one, "x.zip");
return {
  zip: await bytes(one),
  same: (await bytes(one)) === (await bytes(other)),
  seen: Object.fromEntries(await Promise.all(seen.map(async (one) => [one.path, await bytes(await one.read())]))),
};
"""


def test_a_folder_is_packed_the_same_each_time_and_an_archive_is_read(visit: Visit) -> None:
    files = {"low/train/a/1.png": PNG, "low/train/é/2.png": OTHER, "low/val/a/1.png": OTHER}
    found = called(visit, "data/archive.js", PACK, entries(files))
    assert found["same"]
    with zipfile.ZipFile(io.BytesIO(base64.b64decode(found["zip"]))) as packed:
        assert packed.testzip() is None
        read = {name: packed.read(name) for name in packed.namelist()}
    assert read == {path.removeprefix("low/"): data for path, data in files.items()}
    assert {path: base64.b64decode(data) for path, data in found["seen"].items()} == read


TAR = """
const bytes = Uint8Array.from(atob(given.archive), (one) => one.charCodeAt(0));
const text = async (blob) => btoa(String.fromCharCode(...new Uint8Array(await blob.arrayBuffer())));
try {
  const found = await it.entriesOf(new Blob([bytes]), given.name);
  return Object.fromEntries(await Promise.all(found.map(async (one) => [one.path, await text(await one.read())])));
} catch (error) {
  return String(error);
}
"""


def tar(mode: Literal["w", "w:gz"], format: int, files: dict[str, bytes]) -> bytes:
    """A tar of these files, a folder and a link."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode, format=format) as archive:
        for name, kind in (("./a", tarfile.DIRTYPE), ("./link", tarfile.SYMTYPE)):
            other = tarfile.TarInfo(name)
            other.type = kind
            archive.addfile(other)
        for path, data in files.items():
            info = tarfile.TarInfo(f"./{path}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


@pytest.mark.parametrize("name", ["x.tar", "x.tar.gz"])
@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_tar_is_read(visit: Visit, name: str, format: int) -> None:
    long = "/".join(["folder" * 8] * 3)
    files = {"a/1.png": PNG, "a/\u00e9.png": OTHER, f"{long}/2.png": PNG, "b/empty.png": b"", "b/large.png": PNG * 500}
    files |= {f"c/{number}.png": PNG * 500 for number in range(24)}
    archive = tar("w" if name == "x.tar" else "w:gz", format, files)
    given = {"name": name, "archive": base64.b64encode(archive).decode()}
    found = called(visit, "data/archive.js", TAR, given)
    assert {path: base64.b64decode(data) for path, data in found.items()} == files


def test_what_is_no_tar_is_told(visit: Visit) -> None:
    whole = tar("w", tarfile.PAX_FORMAT, {"a/1.png": PNG * 100})
    for name, archive, why in (
        ("x.tar", b"no tar at all" * 100, "no tar"),
        ("x.tar", whole[: len(whole) // 4], "cut off"),
        ("x.tgz", b"no gzip at all", "TypeError"),
        ("x.tgz", tar("w:gz", tarfile.PAX_FORMAT, {"a/1.png": PNG})[:-30], "TypeError"),
    ):
        given = {"name": name, "archive": base64.b64encode(archive).decode()}
        assert why in called(visit, "data/archive.js", TAR, given)


LOOK = """
const inspection = it;
const collection = await import(new URL(where.replace("inspection.js", "collection.js"), document.baseURI));
const found = collection.collect(entries(given.files));
const seen = await inspection.look(found, () => undefined, AbortSignal.any([]));
return [...inspection.countFindings(found), ...inspection.imageFindings(seen, given.input)];
"""


def picture(colour: tuple[int, int, int], size: int = 8) -> bytes:
    file = io.BytesIO()
    image = Image.new("RGB", (size, size), colour)
    image.putpixel((0, 0), (255, 255, 255))
    image.save(file, "PNG")
    return file.getvalue()


def findings(visit: Visit, files: dict[str, bytes], channels: int = 1, side: int = 8) -> list[tuple[str, str]]:
    shape = {"channels": channels, "height": side, "width": side, "convert": False}
    found = called(visit, "data/inspection.js", LOOK, {"files": entries(files), "input": shape})
    return [(one["kind"], one["text"]) for one in found]


def test_nothing_is_said_of_images_as_they_should_be(visit: Visit) -> None:
    files = {f"{digit}/{number}.png": png(digit, number) for digit in (0, 1) for number in range(20)}
    assert findings(visit, files) == []


def test_what_is_wrong_with_images_is_found(visit: Visit) -> None:
    files = {f"{digit}/{number}.png": png(digit, number) for digit in (0, 1) for number in range(20)}
    blank = io.BytesIO()
    Image.new("L", (8, 8), 90).save(blank, "PNG")
    planted = {
        "0/copy.png": files["0/3.png"],
        "1/stolen.png": files["0/4.png"],
        "1/blank.png": blank.getvalue(),
        "1/red.png": picture((200, 20, 20)),
        "0/broken.png": b"no image at all",
    }
    found = findings(visit, files | planted)
    assert [kind for kind, _ in found] == ["warn", "warn", "warn", "bad", "note"]
    texts = " ".join(text for _, text in found)
    for path in ("0/4.png", "1/stolen.png", "0/copy.png", "1/blank.png", "1/red.png"):
        assert path in texts
    assert findings(visit, {"a/1.png": PNG, "b/1.png": OTHER}, side=64)[-1][1].startswith("2 images are less than half")
    large = {f"a/{number}.png": png(0, number) for number in range(30)}
    assert any("Unbalanced" in text for _, text in findings(visit, large | {"b/1.png": OTHER, "b/2.png": PNG}))


TOGETHER = "return it.together(given).map((one) => [one.began_at, one.samples, one.unknown]);"


def test_a_share_is_one_of_many_images(visit: Visit) -> None:
    def gathered(*samples: int) -> list[list[int]]:
        spans = [{"began_at": at, "samples": count, "unknown": 1} for at, count in enumerate(samples)]
        found: list[list[int]] = called(visit, "screens/novelty.js", TOGETHER, spans)
        return found

    assert gathered() == []
    assert gathered(3) == [[0, 3, 1]]
    assert gathered(200, 20, 100) == [[0, 200, 1], [1, 20, 1], [2, 100, 1]]
    assert gathered(200, 100, 3) == [[0, 200, 1], [1, 103, 2]]
    assert gathered(5, 5, 5, 5, 15, 10, 30, 2) == [[0, 20, 4], [4, 25, 2], [6, 32, 2]]


EVENTS = """
const stream = new ReadableStream({
  start(controller) {
    const bytes = new TextEncoder().encode(given.text);
    for (let at = 0; at < bytes.length; at += given.size) controller.enqueue(bytes.slice(at, at + given.size));
    controller.close();
  },
});
const found = [];
for await (const event of it.eventsOf(stream)) found.push([event.id, event.data]);
return found;
"""


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_events_are_read_however_they_are_cut(visit: Visit, size: int) -> None:
    text = ': ping\r\n\r\nid: 1-0\r\nevent: state\r\ndata: {"state": "é"}\r\n\r\n'
    text += ": ping\n\nid: end\ndata: a\ndata: b\n\ndata: cut off"
    found = called(visit, "data/events.js", EVENTS, {"text": text, "size": size})
    assert found == [["1-0", '{"state": "é"}'], ["end", "a\nb"]]
