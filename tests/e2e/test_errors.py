"""Tests of refused requests: their problem codes, and no change of the store."""

from __future__ import annotations

import struct
import tarfile
import zlib
from collections.abc import Callable
from io import BytesIO
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

import httpx
import numpy
import pytest
from PIL import Image

from testing.data.digits import archive, png
from testing.processes.stack import Stack

MODEL = "errors"
PNG = {"Content-Type": "image/png"}


@pytest.fixture(scope="module")
def learned(stack: Stack) -> Stack:
    """The stack with a model that has a task `taken`."""
    stack.create(MODEL)
    stack.learn(MODEL, "taken", (0, 1))
    return stack


def jpeg() -> bytes:
    file = BytesIO()
    noise = numpy.random.default_rng(0).integers(0, 256, (64, 64), dtype=numpy.uint8)
    Image.fromarray(noise).save(file, "JPEG")
    return file.getvalue()


def huge_png() -> bytes:
    """A valid PNG of 30,000 x 30,000 pixels in two colours."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(1)
    row = bytes(1 + 30_000 // 8) * 100
    data = b"".join(packer.compress(row) for _ in range(300)) + packer.flush()
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def colour_png() -> bytes:
    file = BytesIO()
    Image.new("RGB", (8, 8), (200, 30, 30)).save(file, "PNG")
    return file.getvalue()


IMAGES: dict[str, tuple[Callable[[], bytes], str]] = {
    "not an image": (lambda: b"This is a letter to the editor.", "not_an_image"),
    "0 bytes": (lambda: b"", "empty_image"),
    "truncated JPEG": (lambda: jpeg()[:700], "truncated_image"),
    "30,000 x 30,000 PNG": (huge_png, "image_too_large"),
    "wrong channels": (colour_png, "wrong_channels"),
}


def zipped(path: str, data: bytes = b"x", mode: int | None = None) -> bytes:
    """A valid archive with one more entry."""
    file = BytesIO(archive((2, 3), 3))
    with ZipFile(file, "a") as packed:
        info = ZipInfo(path)
        info.compress_type = ZIP_DEFLATED
        if mode is not None:
            info.external_attr = mode << 16
            info.create_system = 3
        packed.writestr(info, data)
    return file.getvalue()


def tar_with_link() -> bytes:
    file = BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as packed:
        for digit in (2, 3):
            for index in range(3):
                info = tarfile.TarInfo(f"digit-{digit}/{index}.png")
                data = png(digit, index)
                info.size = len(data)
                packed.addfile(info, BytesIO(data))
        link = tarfile.TarInfo("digit-2/link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        packed.addfile(link)
    return file.getvalue()


def named_in_a_code_page() -> bytes:
    return zipped("digit-2/cafZ.png").replace(b"cafZ", b"caf\x82")


def encrypted() -> bytes:
    data = bytearray(archive((2, 3), 3))
    data[data.index(b"PK\1\2") + 8] |= 1
    return bytes(data)


def many_entries() -> bytes:
    file = BytesIO()
    with ZipFile(file, "w", ZIP_STORED) as packed:
        for number in range(100_000):
            packed.writestr(ZipInfo(f"digit-{number % 2}/{number}.png"), b"")
    return file.getvalue()


ARCHIVES: dict[str, tuple[Callable[[], bytes], str]] = {
    "no archive": (lambda: b"not an archive at all", "not_an_archive"),
    "0 bytes": (lambda: b"", "not_an_archive"),
    "../x": (lambda: zipped("../x"), "archive_unsafe_path"),
    "absolute path": (lambda: zipped("/etc/x.png"), "archive_unsafe_path"),
    "symlink in a zip": (lambda: zipped("digit-2/link.png", b"/etc/passwd", 0o120777), "archive_link"),
    "symlink in a tar": (tar_with_link, "archive_link"),
    "100,000 entries": (many_entries, "archive_too_many_entries"),
    "ratio of 1,000:1": (lambda: zipped("digit-2/zeros.png", bytes(50_000_000)), "archive_suspicious_ratio"),
    "one image in a class": (lambda: archive((2,), 5, {"digit-3/1.png": png(3, 1)}), "too_few_images"),
    "a name in no known encoding": (named_in_a_code_page, "archive_bad_name"),
    "an encrypted image": (encrypted, "invalid_archive"),
    "no class folders": (lambda: zipped("a/b/c/d/e.png"), "archive_bad_layout"),
}


def only(data: bytes) -> bytes:
    """An archive whose images are all the same bytes."""
    return archive((), extra={f"{name}/{number}.png": data for name in ("left", "right") for number in range(40)})


UNUSABLE: dict[str, tuple[Callable[[], bytes], str]] = {
    "colour images for a grey model": (lambda: only(colour_png()), "wrong_channels"),
    "letters that are called images": (lambda: only(b"This is a letter to the editor."), "not_an_image"),
}


class Refusal:
    """Check of a refused request, and of the store before and after it."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._before = stack.objects()

    def check(self, response: httpx.Response, code: str) -> None:
        assert response.headers["Content-Type"] == "application/problem+json"
        body = response.json()
        assert body["code"] == code, body
        assert 400 <= response.status_code < 500
        assert body["status"] == response.status_code
        assert body["type"] == f"urn:engram:error:{code}"
        assert body["title"]
        assert body["detail"]
        assert self._stack.objects() == self._before
        after = self._stack.client.post(f"/v1/models/{MODEL}/predict", content=png(0, 100), headers=PNG)
        assert after.status_code == 200
        assert self._stack.client.get("/readyz").status_code == 200


@pytest.mark.parametrize("what", IMAGES)
@pytest.mark.parametrize("call", ["predict", "explain"])
def test_images(learned: Stack, call: str, what: str) -> None:
    make, code = IMAGES[what]
    refusal = Refusal(learned)
    response = learned.client.post(f"/v1/models/{MODEL}/{call}", content=make(), headers=PNG)
    refusal.check(response, code)


@pytest.mark.parametrize("what", IMAGES)
def test_a_bad_image_in_a_batch_fails_only_itself(learned: Stack, what: str) -> None:
    make, code = IMAGES[what]
    parts = [("image", ("x", data, "image/png")) for data in (png(0, 100), make(), png(1, 100))]
    response = learned.client.post(f"/v1/models/{MODEL}/predict", files=parts)
    assert response.status_code == 200
    first, bad, last = response.json()["predictions"]
    assert first["label"] in ("digit-0", "digit-1")
    assert last["label"] in ("digit-0", "digit-1")
    assert (bad["error"]["code"], 400 <= bad["error"]["status"] < 500) == (code, True)


@pytest.mark.parametrize("what", ARCHIVES)
def test_archives(learned: Stack, what: str) -> None:
    make, code = ARCHIVES[what]
    data = make()
    refusal = Refusal(learned)
    refusal.check(learned.submit(MODEL, "new", data), code)


@pytest.mark.parametrize("what", UNUSABLE)
def test_archives_of_nothing_that_can_be_used(learned: Stack, what: str) -> None:
    make, code = UNUSABLE[what]
    refusal = Refusal(learned)
    response = learned.submit(MODEL, "new", make())
    assert response.status_code == 422
    refusal.check(response, code)


def test_a_task_name_that_is_taken(learned: Stack) -> None:
    refusal = Refusal(learned)
    refusal.check(learned.submit(MODEL, "taken", archive((2, 3), 5)), "task_exists")


def test_an_unknown_model(learned: Stack) -> None:
    refusal = Refusal(learned)
    refusal.check(learned.submit("nobody", "new", archive((2, 3), 5)), "unknown_model")
    response = learned.client.post("/v1/models/nobody/predict", content=png(0, 1), headers=PNG)
    refusal.check(response, "unknown_model")


@pytest.mark.parametrize("path", ["/v1/models", f"/v1/models/{MODEL}/tasks", f"/v1/models/{MODEL}/predict"])
@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"{'name': 'x'}"])
def test_a_json_body_that_is_not_json(learned: Stack, path: str, body: bytes) -> None:
    refusal = Refusal(learned)
    response = learned.client.post(path, content=body, headers={"Content-Type": "application/json"})
    refusal.check(response, "invalid_json")


def test_every_kind_of_failure_has_a_code_of_its_own() -> None:
    kinds = {what.removesuffix(" in a zip").removesuffix(" in a tar"): code for what, (_, code) in ARCHIVES.items()}
    del kinds["0 bytes"], kinds["absolute path"]  # the same failures as "no archive" and "../x"
    codes = [*kinds.values(), *(code for _, code in IMAGES.values())]
    codes += ["task_exists", "unknown_model", "invalid_json"]
    assert len(set(codes)) == len(codes)


def test_some_unreadable_images_are_skipped_and_listed(learned: Stack) -> None:
    learned.create("unreadable")
    bad = {"digit-2/empty.png": b"", "digit-3/cut.jpg": jpeg()[:700], "digit-3/letter.png": b"Dear editor"}
    data = archive((2, 3), 60, bad)
    job = learned.finish(learned.submit("unreadable", "some", data))
    assert job["state"] == "succeeded"
    report = learned.client.get("/v1/models/unreadable/tasks/some").json()["report"]
    assert {one["name"]: one["code"] for one in report["unreadable"]} == {
        "digit-2/empty.png": "empty_image",
        "digit-3/cut.jpg": "truncated_image",
        "digit-3/letter.png": "not_an_image",
    }
    before = learned.objects()
    job = learned.finish(learned.submit("unreadable", "strict", data, {"max_unreadable": 0.01}))
    assert (job["state"], job["error"]["code"]) == ("failed", "too_many_unreadable_images")
    left = {path for path in learned.objects() - before if not path.startswith(("jobs/", "recent/", "audit/"))}
    assert left == set()
    assert learned.client.get("/v1/models/unreadable").json()["version"] == 1
