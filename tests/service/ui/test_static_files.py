"""Tests of how the page is served: policy, caching, addresses, size; without a browser."""

from __future__ import annotations

import gzip
import json
import re
import tomllib
from pathlib import PurePosixPath
from urllib.parse import urljoin

import httpx
import pytest

from service.app import create_app
from service.middleware.compression import compressed
from service.ui.static_files import POLICY, StaticFile, StaticPage
from testing.servers.reverse_proxy import proxied
from testing.servers.service import Service
from tests.repository.layout import LONGEST_FILE, MOST_ENTRIES, ROOT

STATIC = ROOT / "service" / "ui" / "static"
MOST_BYTES = 150_000
"""Of the first load, packed."""


@pytest.fixture(scope="module")
def page() -> StaticPage:
    return StaticPage()


def named(document: bytes) -> list[str]:
    """The addresses that the document names."""
    return re.findall(r'(?:src|href)="([^"]+)"', document.decode())


def imported(path: str, files: dict[str, StaticFile], found: set[str]) -> set[str]:
    """A module, and those that it imports before it runs."""
    found.add(path)
    text = files[path].content.decode()
    for name in re.findall(r'^(?:import|export) .*?from "(\.[^"]+)";$', text, re.MULTILINE):
        if (inner := urljoin(f"/{path}", name).lstrip("/")) not in found:
            imported(inner, files, found)
    return found


def test_the_document_names_its_files_by_relative_addresses_that_there_are(page: StaticPage) -> None:
    addresses = named(page.document.content)
    assert len(addresses) >= 4
    for address in addresses:
        assert address.startswith(f"./{page.digest}/")
        assert address.removeprefix(f"./{page.digest}/") in page.files


def test_nothing_in_it_leads_to_another_host(page: StaticPage) -> None:
    for path, file in {**page.files, "index.html": page.document}.items():
        if path.startswith("vendor/"):
            continue
        found = re.findall(rb"""["'(](?:https?:)?//[^"')]*""", file.content)
        assert [one for one in found if b"www.w3.org/2000/svg" not in one] == [], path


def test_text_is_set_as_text(page: StaticPage) -> None:
    for path, file in page.files.items():
        if not path.startswith("vendor/"):
            assert not re.search(rb"(inner|outer)HTML|insertAdjacentHTML|document\.write|\beval\(", file.content), path


def test_the_first_load_is_small(page: StaticPage) -> None:
    modules = imported("main.js", page.files, set())
    first = {*modules, *(path for path in page.files if path.endswith((".css", ".svg")))}
    sent = len(page.document.packed) + sum(len(page.files[path].packed) for path in first)
    print(f"first load: {sent} bytes packed, {len(first)} files")
    document = len(compressed(json.dumps(create_app().openapi()).encode()))
    assert sent + document < MOST_BYTES
    assert "vendor/fflate.js" not in first


def test_every_file_is_installed_and_of_a_moderate_size() -> None:
    packaging = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    patterns = packaging["package-data"]["service.ui"]
    files = [path for path in STATIC.rglob("*") if path.is_file()]
    for path in files:
        inside = PurePosixPath(path.relative_to(STATIC.parent))
        assert any(inside.full_match(one) if hasattr(inside, "full_match") else inside.match(one) for one in patterns)
        if path.parent.name != "vendor":
            assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST_FILE, path
    folders = {path.parent for path in files}
    assert all(len(list(folder.iterdir())) <= MOST_ENTRIES for folder in folders)


def test_what_others_wrote_comes_with_its_licence(page: StaticPage) -> None:
    licences = page.files["vendor/licences.txt"].content.decode()
    for name in ("Preact", "htm", "fflate"):
        assert name in licences
    assert "Apache License" in licences
    assert licences.count("MIT License") + licences.count("The MIT License") >= 2


def test_files_are_kept_for_ever_and_the_document_is_asked_for_again(reader: Service, page: StaticPage) -> None:
    document = reader.client.get("/ui/")
    assert document.status_code == 200
    assert document.headers["Content-Security-Policy"] == POLICY
    assert document.headers["Cache-Control"] == "no-cache"
    again = reader.client.get("/ui/", headers={"If-None-Match": document.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    main = reader.client.get(f"/ui/{page.digest}/main.js")
    assert main.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert main.headers["Content-Type"] == "text/javascript; charset=utf-8"
    assert main.headers["Content-Encoding"] == "gzip"
    assert main.content == page.files["main.js"].content == gzip.decompress(page.files["main.js"].packed)
    plain = reader.client.get(f"/ui/{page.digest}/main.js", headers={"Accept-Encoding": "gzip;q=0, br"})
    assert "Content-Encoding" not in plain.headers
    assert plain.content == main.content
    of_another_release = reader.client.get("/ui/0000000000000000/main.js")
    assert of_another_release.headers["Cache-Control"] == "no-store"


def test_the_document_of_the_interface_is_sent_compressed_too(reader: Service) -> None:
    plain = reader.client.get("/openapi.json", headers={"Accept-Encoding": "identity"})
    packed = reader.client.get("/openapi.json")
    assert "Content-Encoding" not in plain.headers
    assert packed.headers["Content-Encoding"] == "gzip"
    assert packed.json() == plain.json()
    assert packed.headers["Vary"] == plain.headers["Vary"] == "Accept-Encoding"
    assert packed.num_bytes_downloaded < len(plain.content) / 4


@pytest.mark.parametrize("path", ["main.css", "%2e%2e/static_files.py", "vendor/preact.d.ts", "index.html", ""])
def test_nothing_else_is_served(reader: Service, page: StaticPage, path: str) -> None:
    answer = reader.client.get(f"/ui/{page.digest}/{path}")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_a_browser_is_led_to_the_page_and_a_program_is_not(reader: Service) -> None:
    program = reader.client.get("/")
    assert (program.status_code, program.json()["code"]) == (404, "not_found")
    for path in ("/", "/ui"):
        led = reader.client.get(path, headers={"Accept": "text/html,application/xhtml+xml"})
        assert led.status_code == 307
        assert urljoin(f"http://host{path}", led.headers["Location"]) == "http://host/ui/"


def test_it_is_found_below_a_prefix_that_nobody_told_it_of(reader: Service) -> None:
    with (
        proxied(reader.url, "/a/b", strips=True) as proxy,
        httpx.Client(base_url=proxy, follow_redirects=True, headers={"Accept": "text/html"}) as client,
    ):
        for path in ("/a/b/", "/a/b/ui"):
            document = client.get(path)
            assert document.url.path == "/a/b/ui/"
        for address in named(document.content):
            assert client.get(urljoin(str(document.url), address)).status_code == 200
