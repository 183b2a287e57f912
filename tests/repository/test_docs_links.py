"""Tests of links, paths and names of tests in the documents, each of which must exist."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    [
        *(
            ROOT / name
            for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md", "client/README.md")
        ),
        *(ROOT / "docs").rglob("*.md"),
    ]
)
OLD = {ROOT / "docs" / "upgrading.md"}
"""Documents that name modules as they were once called."""
MADE = ("site/", "demo-output/", "engram-data/", ".venv/")
"""Folders that commands make."""
ENDINGS = (".py", ".md", ".yml", ".toml", ".txt", ".json", ".jsonl", ".svg", ".Dockerfile", "/")
TOP = {path.name for path in ROOT.iterdir()}


def slug(heading: str) -> str:
    """The anchor of a heading, as GitHub and MkDocs make it."""
    plain = re.sub(r"[`*]|\[([^]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")


def anchors(document: Path) -> set[str]:
    """The anchors of a document's headings."""
    prose = re.sub(r"^```.*?^```", "", document.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return {slug(heading) for heading in re.findall(r"^#+ (.+)$", prose, re.MULTILINE)}


def links(text: str) -> Iterator[str]:
    """The targets of Markdown links that lead to no other host."""
    prose = re.sub(r"^```.*?^```|`[^`\n]*`", "", text, flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if not re.match(r"[a-z]+:", target):
            yield target


def paths(text: str) -> Iterator[str]:
    """What looks like a path in the repository, alone or before `::name`, in code spans."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    for span in re.findall(r"`([^`\n]+)`", prose):
        path = span.partition("::")[0]
        if re.fullmatch(r"[\w.-]+(/[\w.-]+)*/?", path) and path.endswith(ENDINGS) and not path.startswith(MADE):
            first, slash, _ = path.partition("/")
            if first in TOP or (slash and not path.endswith("/")):
                yield span


def defines(path: Path, names: list[str]) -> bool:
    """Whether a file of Python defines all of these functions and classes."""
    text = path.read_text(encoding="utf-8")
    return all(re.search(rf"^\s*(?:async )?(?:def|class) {name}\b", text, re.MULTILINE) for name in names)


def missing(document: Path, text: str) -> Iterator[str]:
    """What a document names that is not there."""
    for target in links(text):
        file, _, anchor = target.partition("#")
        path = (document.parent / file).resolve() if file else document
        if not path.exists() or (anchor and anchor not in anchors(path)):
            yield target
    for span in paths(text):
        file, _, name = span.partition("::")
        path = ROOT / file
        if not path.exists() or (name and not defines(path, name.split("::"))):
            yield span


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_and_path_exists(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    if document in OLD:
        text = re.sub(r"^\|.*\|$", "", text, flags=re.MULTILINE)
    assert list(missing(document, text)) == []


def test_paths_are_found_at_all() -> None:
    found = {span for document in DOCUMENTS for span in paths(document.read_text(encoding="utf-8"))}
    assert {"engram/errors.py", "service/settings.py", "docker-compose.yml", "deploy/grafana/engram.json"} <= found
    assert len([span for span in found if "::" in span]) > 20


@pytest.mark.parametrize(
    "text",
    [
        "[there](nowhere.md)",
        "[there](README.md#no-such-heading)",
        "`engram/nowhere.py`",
        "`lost/file.py`",
        "`tests/repository/test_docs_links.py::test_no_such_thing`",
        "| `tests/nowhere/` |",
    ],
)
def test_what_is_missing_would_be_found(text: str) -> None:
    assert len(list(missing(ROOT / "README.md", text))) == 1


@pytest.mark.parametrize(
    "text", ["[there](docs/jobs.md#drills)", "`engram/memory.py`", "[out](https://example.org/x.md)", "`a/b`, `x.png`"]
)
def test_what_exists_is_not(text: str) -> None:
    assert not list(missing(ROOT / "README.md", text))
