"""Tables of the layout: allowed imports, levels of parts, sizes of folders, files and functions."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]

MAY_IMPORT: dict[str, set[str]] = {
    "engram": set(),
    "engram_client": set(),
    "telemetry": set(),
    "vault": {"telemetry"},
    "service": {"engram", "engram_client", "vault", "telemetry"},
    "worker": {"engram", "vault", "telemetry"},
    "testing": {"engram", "engram_client", "telemetry", "vault", "service", "worker", "examples"},
    "benchmarks": {"engram", "engram_client", "telemetry", "vault", "service", "worker", "testing", "examples"},
    "examples": {"engram", "engram_client"},
    "tests": {
        "engram",
        "engram_client",
        "telemetry",
        "vault",
        "service",
        "worker",
        "testing",
        "benchmarks",
        "examples",
    },
}
"""Which of our packages each may import, besides itself."""

ELSEWHERE = {"engram_client": ROOT / "client" / "engram_client"}
"""Packages that do not lie in the repository's root: the client is a distribution of its own."""

MAY_NOT_IMPORT = {
    "engram": {"fastapi", "starlette", "celery", "redis", "obstore", "httpx", "uvicorn"},
    "engram_client": {"torch", "numpy", "PIL", "pydantic", "rich", "typer", "anyio", "fastapi", "starlette"},
    "vault": {"torch", "torchvision", "fastapi", "starlette", "celery"},
    "telemetry": {"torch", "torchvision", "fastapi", "starlette", "celery", "redis", "obstore"},
}
"""Which third-party packages they may not."""

LEVELS: dict[str, tuple[set[str], ...]] = {
    "engram": (
        {"errors", "runtime"},
        {"config", "checkpointing"},
        {"context", "data", "nn"},
        {"snapshot", "explain", "recognition"},
        {"training", "drift"},
        {"methods"},
        {"memory"},
        {"certificate", "streams"},
    ),
    "engram_client": (
        {"errors", "images", "explanation"},
        {"labelled", "reading"},
        {"bodies", "records"},
        {"delivery"},
        {"calls", "events", "settings"},
        {"exchange", "jobs"},
        {"async_jobs", "client"},
        {"async_client"},
    ),
    "vault": (
        {"errors", "timestamps", "settings"},
        {"storage"},
        {"models", "keys", "coordination"},
        {"commit_log", "backbones"},
        {"approval", "certificates", "classes", "jobs"},
        {"audit"},
        {"maintenance"},
        {"vault"},
    ),
    "service": (
        {"errors", "settings", "metrics"},
        {"lifecycle", "middleware"},
        {"auth", "models"},
        {"jobs"},
        {"dependencies"},
        {"api", "ui"},
        {"protocol"},
        {"app"},
        {"server"},
        {"cli"},
        {"__main__"},
    ),
    "worker": (
        {"settings", "metrics", "interruption", "progress", "liveness"},
        {"dataset", "checkpoints", "instrumentation", "outcome", "resources"},
        {"versions"},
        {"attempt"},
        {"job_runner"},
        {"background"},
        {"celery_app"},
        {"__main__"},
    ),
    "testing": ({"servers"}, {"data"}, {"processes"}, {"drills"}),
    "benchmarks": (
        {"harness"},
        {"baselines", "drills", "studies", "reports"},
        {"growth", "sequences"},
        {"serving"},
        {"__main__"},
    ),
}
"""The parts of a package from the ground up; a part imports only what lies on levels below its own."""

METHODS = {"eidetic", "rnf", "rerelrp", "rmn", "sharc"}
"""Packages that import nothing of each other, and that others reach through `engram.methods.base` only."""

REACHING = {"engram.streams": "rmn"}
"""Learning from a stream is RMN's own algorithm, above `Memory`, by which it learns its tasks."""

MOST_ENTRIES = 16
"""Modules and packages in one folder, `__init__.py` not counted."""

LONGEST_FILE = 400
"""Lines."""

LONGEST_FUNCTION = 60
"""Lines, of a function with its docstring."""

LONGEST_HEADING = 100
"""Characters in the first line of a module's docstring."""


def folder(package: str) -> Path:
    """Where a package lies."""
    return ELSEWHERE.get(package, ROOT / package)


def inside(path: Path) -> tuple[str, ...]:
    """The parts of a file's path from its package on."""
    for name, place in ELSEWHERE.items():
        if path.is_relative_to(place):
            return (name, *path.relative_to(place).parts)
    return path.relative_to(ROOT).parts


def sources(*packages: str) -> list[Path]:
    """The Python files of packages, sorted."""
    return sorted(path for package in packages for path in folder(package).rglob("*.py"))


@cache
def tree_of(path: Path) -> ast.Module:
    """A file, parsed once for all that read it; nobody changes what it is given."""
    return ast.parse(path.read_text(encoding="utf-8"))
