"""MkDocs hook that lets no built page load anything from another host."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

FALLBACKS = "https://unpkg.com/"
"""Where the theme's script would load Mermaid, and a polyfill for browsers from before 2020, from."""

LOADED = re.compile(
    r"""<(?:script|img|iframe|source|audio|video|embed|input)\b[^>]*?\bsrc(?:set)?=["']?((?:https?:)?//[^"' >]+)"""
    r"""|<link\b[^>]*?\bhref=["']?((?:https?:)?//[^"' >]+)"""
    r"""|@import\s+(?:url\()?["']?((?:https?:)?//[^"')]+)"""
    r"""|\burl\(["']?((?:https?:)?//[^"')]+)""",
    re.IGNORECASE,
)
"""Addresses on other hosts that a browser asks by itself; links to follow are none of them."""


def foreign(text: str) -> list[str]:
    """The addresses on other hosts that a page or style sheet loads."""
    return [next(filter(None, found.groups())) for found in LOADED.finditer(text)]


def on_post_build(config: Any) -> None:
    """Take the theme's fallbacks out of its scripts, and fail if anything else would be loaded from elsewhere."""
    site = Path(config["site_dir"])
    for path in sorted(site.rglob("*.js")):
        text = path.read_text(encoding="utf-8")
        if FALLBACKS in text:
            path.write_text(text.replace(FALLBACKS, "/unavailable/"), encoding="utf-8")
    for path in sorted((*site.rglob("*.html"), *site.rglob("*.css"))):
        if found := foreign(path.read_text(encoding="utf-8")):
            raise SystemExit(f"{path.relative_to(site)} loads from another host: {', '.join(found)}")
