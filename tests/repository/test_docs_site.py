"""Tests of the documentation site's configuration, and of the hook against other hosts."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
SITE = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def hook() -> ModuleType:
    """The hook as MkDocs loads it."""
    (name,) = SITE["hooks"]
    spec = importlib.util.spec_from_file_location("own_host", ROOT / name)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pages(nav: Any) -> list[str]:
    """The files that a navigation names."""
    if isinstance(nav, str):
        return [nav]
    return [page for one in (nav.values() if isinstance(nav, dict) else nav) for page in pages(one)]


def test_the_navigation_names_every_page_once() -> None:
    there = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}
    named = pages(SITE["nav"])
    assert len(set(named)) == len(named)
    assert set(named) == there


def test_any_warning_is_an_error_and_fonts_are_the_readers_own() -> None:
    assert SITE["strict"] is True
    assert SITE["theme"]["font"] is False
    assert set(SITE["validation"]["links"].values()) == {"warn"}


@pytest.mark.parametrize(
    "text",
    [
        '<script src="https://unpkg.com/x.js"></script>',
        '<link rel="stylesheet" href="https://fonts.example/x.css">',
        '<img alt="x" src=//img.example/x.png>',
        '<style>@import "https://a.example/x.css";</style>',
        "a{background:url(https://a.example/x.png)}",
    ],
)
def test_a_page_that_asks_another_host_is_found(hook: ModuleType, text: str, tmp_path: Path) -> None:
    assert len(hook.foreign(text)) == 1
    (tmp_path / "page.html").write_text(text)
    with pytest.raises(SystemExit, match=r"^page\.html loads from another host: "):
        hook.on_post_build({"site_dir": str(tmp_path)})


@pytest.mark.parametrize("text", ['<a href="https://example.org">x</a>', '<script src="assets/x.js"></script>'])
def test_links_to_follow_and_own_files_are_not(hook: ModuleType, text: str) -> None:
    assert hook.foreign(text) == []


def test_the_themes_fallbacks_are_taken_out(hook: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "bundle.js").write_text(f'load("{hook.FALLBACKS}mermaid.js")')
    hook.on_post_build({"site_dir": str(tmp_path)})
    assert not re.search(r"https?:", (tmp_path / "bundle.js").read_text())
