"""Tables of the layout: allowed imports, levels of parts, sizes of folders, files and functions."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]

MAY_IMPORT: dict[str, set[str]] = {
    "engram": set(),
    "telemetry": set(),
    "vault": {"telemetry"},
    "service": {"engram", "vault", "telemetry"},
    "worker": {"engram", "vault", "telemetry"},
    "testing": {"engram", "telemetry", "vault", "service", "worker", "examples"},
    "benchmarks": {"engram", "telemetry", "vault", "service", "worker", "testing", "examples"},
    "examples": {"engram"},
    "tests": {"engram", "telemetry", "vault", "service", "worker", "testing", "benchmarks", "examples"},
}
"""Which of our packages each may import, besides itself."""

MAY_NOT_IMPORT = {
    "engram": {"fastapi", "starlette", "celery", "redis", "obstore", "httpx", "uvicorn"},
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
    "vault": (
        {"errors", "timestamps", "parallel", "settings"},
        {"storage"},
        {"models", "keys", "coordination"},
        {"commit_log", "backbones"},
        {"jobs"},
        {"maintenance"},
        {"vault"},
    ),
    "service": (
        {"errors", "settings", "metrics"},
        {"lifecycle", "middleware"},
        {"auth", "models"},
        {"jobs"},
        {"dependencies"},
        {"api"},
        {"app"},
        {"server"},
        {"cli"},
        {"__main__"},
    ),
    "worker": (
        {"settings", "metrics", "interruption", "dataset_source", "progress", "liveness"},
        {"checkpoints", "instrumentation", "outcome", "resources"},
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


def sources(*packages: str) -> list[Path]:
    """The Python files of packages, sorted."""
    return sorted(path for package in packages for path in (ROOT / package).rglob("*.py"))
