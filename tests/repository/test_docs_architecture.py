"""The packages, levels and routes that the documents describe, compared with the code."""

from __future__ import annotations

import re

import pytest

from service.api.route import scopes
from service.app import create_app
from tests.repository.layout import LEVELS, MAY_IMPORT, ROOT

ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
HTTP = (ROOT / "docs" / "http.md").read_text(encoding="utf-8")

PACKAGES: dict[str, str] = dict(re.findall(r"^\| `(\w+)/` \| .* \| (.*) \|$", ARCHITECTURE, re.MULTILINE))
PAGE_LEVELS = [
    [name.strip() for name in level.split(",")]
    for level in re.findall(r"^```text\n(errors, [^`]*)\n```$", ARCHITECTURE, re.MULTILINE)[0].splitlines()
]


def allowed(package: str) -> set[str]:
    """The packages that the table lets a package import."""
    text = PACKAGES[package]
    named = set(re.findall(r"`(\w+)`", text))
    return PACKAGES.keys() - named if text.startswith("all") else named


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_the_page_says_what_a_package_may_import(package: str) -> None:
    assert allowed(package) - {package} == MAY_IMPORT[package]


def test_the_page_names_every_package() -> None:
    assert PACKAGES.keys() == MAY_IMPORT.keys()


def test_the_page_lists_the_levels_of_the_learner() -> None:
    assert [set(level) for level in PAGE_LEVELS] == list(LEVELS["engram"])


def test_every_part_of_the_learner_is_described() -> None:
    table = ARCHITECTURE.split("| module or package | what it holds |")[1].split("\n\n")[0]
    rows = re.findall(r"^\| (.*?) \|", table, re.MULTILINE)
    described = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert sorted(described) == sorted(name for level in PAGE_LEVELS for name in level)


def test_every_route_is_listed_with_its_scope() -> None:
    app = create_app()
    declared = scopes(app)
    assert declared
    operations = {
        (method.upper(), path): operation
        for path, methods in app.openapi()["paths"].items()
        for method, operation in methods.items()
    }
    rows = re.findall(r"^\| `([A-Z]+) (\S+)` \| (?:`(\w+)`|none) \|", HTTP, re.MULTILINE)
    listed = {(method, path): scope for method, path, scope in rows}
    assert len(listed) == len(rows)
    needed = {
        route: "".join(scope for option in operation.get("security", []) for scope in option.get("key", []))
        for route, operation in operations.items()
    }
    assert listed == needed
