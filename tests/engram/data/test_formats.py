"""Tests of the names of formats, told from first bytes."""

from __future__ import annotations

import io
import tarfile
import zipfile

import pytest
from PIL import Image

from engram.data.formats import HEAD, READ_FORMATS, UNREAD_FORMATS, image_format

WRITTEN = {"PNG": "PNG", "JPEG": "JPEG", "WEBP": "WebP", "BMP": "BMP", "GIF": "GIF", "TIFF": "TIFF", "AVIF": "AVIF"}
UNREAD = {"JPEG2000": "JPEG 2000", "ICO": "ICO", "ICNS": "ICNS", "PPM": "PNM", "DDS": "DDS", "EPS": "EPS"}


def written(kind: str) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (64, 64), (9, 99, 199)).save(out, kind)
    return out.getvalue()


@pytest.mark.parametrize("kind", WRITTEN)
def test_what_is_decoded_is_known(kind: str) -> None:
    found = image_format(written(kind)[:HEAD])
    assert found == WRITTEN[kind]
    assert found in READ_FORMATS


@pytest.mark.parametrize("kind", UNREAD)
def test_images_of_other_formats_are_named(kind: str) -> None:
    found = image_format(written(kind)[:HEAD])
    assert found == UNREAD[kind]
    assert found in UNREAD_FORMATS


def archive_in(kind: str) -> bytes:
    out = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(out, "w") as packed:
            packed.writestr("a", b"x")
        return out.getvalue()
    with tarfile.open(fileobj=out, mode=f"w:{kind}") as tar:  # type: ignore[call-overload]  # the mode is computed
        tar.addfile(tarfile.TarInfo("a"))
    return out.getvalue()


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"\0\0\0\x1cftypavis\0\0\0\0avismsf1miaf", "AVIF"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf", "AVIF"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1heicmiaf", "HEIC"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x18ftypcrx \0\0\0\1crx isom", "camera RAW"),
        (b"\0\0\0\x18ftypisom\0\0\2\0isommp41", "MP4 video"),
        (b"\0\0\0\x14ftypqt  \0\0\2\0qt  ", "QuickTime video"),
        (b"\0\0\0\x0cftyp", "MP4 video"),
        (b"RIFF\x24\0\0\0WAVEfmt ", "WAV audio"),
        (b"\xff\x0a\xfa\x1f", "JPEG XL"),
        (b"8BPS\0\1", "PSD"),
        (bytes(128) + b"DICM\2\0", "DICOM"),
        (b"%PDF-1.7\n%\xe2\xe3", "PDF"),
        (b"\x1a\x45\xdf\xa3\x01\0", "Matroska video"),
        (b'<?xml version="1.0"?>\n<svg xmlns="">', "SVG"),
        (b"<!DOCTYPE html><html>", "HTML"),
        (b"file,label\n1.png,cat\n", "text"),
        ("Grüße, 猫".encode() * 40, "text"),
        ("höchst".encode("utf-16"), "text"),
        (b"\xef\xbb\xbfname", "text"),
        (b"BM is what I write about, at length.", "text"),
        (b"", None),
        (bytes(512), None),
        (b"\xe4\xf6\xfc no UTF-8", None),
        (b"P", "text"),
        (b"\x89PN", None),
    ],
)
def test_the_rest_is_named_where_it_is_known(head: bytes, name: str | None) -> None:
    assert image_format(head[:HEAD]) == name


def test_a_character_cut_in_two_is_still_text() -> None:
    for head in ("ä" * 300, "猫" * 300, "😀" * 300):
        for length in range(HEAD - 4, HEAD + 1):
            assert image_format(head.encode()[:length]) == "text"


# Made in the test, not while tests are collected: some hold the time of making, and names of tests must repeat.
@pytest.mark.parametrize(
    ("kind", "name"), [("zip", "zip archive"), ("", "tar archive"), ("gz", "gzip archive"), ("xz", "xz archive")]
)
def test_archives_are_named(kind: str, name: str) -> None:
    assert image_format(archive_in(kind)[:HEAD]) == name
