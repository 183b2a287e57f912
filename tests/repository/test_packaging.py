"""Tests of the distribution: its name, its packages, the files in container images and wheels."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import entry_points, version

import pytest
import yaml
from engram_client import VERSION

from tests.repository.layout import ROOT, folder

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
INSTALLED = [pattern.removesuffix("*") for pattern in PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]]


def test_the_distribution_is_installed_under_its_name() -> None:
    assert PROJECT["project"]["name"] == "engram-vision"
    assert version("engram-vision") == PROJECT["project"]["version"]
    commands = entry_points(group="console_scripts", name="engram")
    assert "engram-vision" in {command.dist.name for command in commands if command.dist is not None}


@pytest.mark.parametrize("package", INSTALLED)
def test_type_checkers_may_use_the_annotations(package: str) -> None:
    assert (folder(package) / "__init__.py").exists()
    assert (folder(package) / "py.typed").exists()
    assert "py.typed" in PROJECT["tool"]["setuptools"]["package-data"]["*"]


def imported(package: str) -> set[str]:
    """The installed packages that the files of one import."""
    texts = (path.read_text(encoding="utf-8") for path in folder(package).rglob("*.py"))
    found = (name for text in texts for name in re.findall(r"^\s*(?:from|import) (\w+)", text, re.MULTILINE))
    return set(found) & {"benchmarks", "testing", "tests", *INSTALLED}


def test_what_is_installed_imports_nothing_that_is_not() -> None:
    assert set().union(*(imported(package) for package in INSTALLED)) <= set(INSTALLED)


def test_container_images_hold_every_package() -> None:
    text = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")
    copied = re.findall(r"^COPY (\w+) \1$", text, re.MULTILINE)
    folders = {folder(package).relative_to(ROOT).parts[0] for package in INSTALLED}
    assert sorted(copied) == sorted(folders)
    sent = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    assert {f"!{name}" for name in folders} <= set(sent)


def test_the_client_is_a_distribution_of_its_own_and_comes_along() -> None:
    client = tomllib.loads((ROOT / "client" / "pyproject.toml").read_text(encoding="utf-8"))
    assert client["project"]["name"] == "engram-vision-client"
    assert client["project"]["version"] == PROJECT["project"]["version"] == VERSION
    assert [re.split(r"[^\w-]", line)[0] for line in client["project"]["dependencies"]] == ["httpx"]
    assert "client" in PROJECT["tool"]["setuptools"]["packages"]["find"]["where"]
    assert (ROOT / "client" / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


def test_every_extra_is_pinned() -> None:
    pinned = {
        re.sub(r"[-_.]+", "-", line.partition("==")[0]).lower()
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    }
    extras = PROJECT["project"]["optional-dependencies"].values()
    asked = [*PROJECT["project"]["dependencies"], *(line for extra in extras for line in extra)]
    names = {re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", line)[0]).lower() for line in asked}
    assert names <= pinned


def test_hooks_run_what_make_installs() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    assert [one["repo"] for one in hooks] == ["local"]
    entries = [hook["entry"] for hook in hooks[0]["hooks"]]
    assert all(entry.startswith((".venv/bin/ruff ", ".venv/bin/mypy")) for entry in entries)
    assert all(hook["language"] == "system" for hook in hooks[0]["hooks"])
