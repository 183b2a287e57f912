"""What outlives an interruption: finished runs in the file of results, and the memory of one that is not finished."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path

from benchmarks.harness.evaluation import BenchmarkProgress

_COURSE = "course.json"


def rows_of(path: Path) -> list[dict[str, object]]:
    """The JSON lines of a file; none if it is not there."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def append(path: Path, row: dict[str, object]) -> None:
    """Add one line to a file, and make sure that it is on disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
        file.flush()
        os.fsync(file.fileno())


class Workplace:
    """A folder beside the file of results, in which one unfinished run is kept.

    Parameters
    ----------
    out
        The file of results.
    key
        Of the run.
    """

    def __init__(self, out: Path, key: str) -> None:
        self.folder = out.with_name(out.name + ".unfinished") / key

    def progress(self) -> BenchmarkProgress | None:
        """How far the run had come; None if nothing is kept of it."""
        path = self.folder / _COURSE
        return BenchmarkProgress(**json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None

    def memory(self, progress: BenchmarkProgress) -> Path:
        """The folder for the memory that has learned as many tasks."""
        return self.folder / f"memory-{len(progress.seconds)}"

    def keep(self, progress: BenchmarkProgress) -> None:
        """Note how far the run has come; the memory lies in its folder already, and those before it may go."""
        self.folder.mkdir(parents=True, exist_ok=True)
        unfinished = self.folder / "course.tmp"
        unfinished.write_text(json.dumps(asdict(progress)), encoding="utf-8")
        unfinished.replace(self.folder / _COURSE)
        for other in self.folder.glob("memory-*"):
            if other != self.memory(progress):
                shutil.rmtree(other)

    def clear(self) -> None:
        """Remove all that was kept of the run."""
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.folder.parent.exists() and not any(self.folder.parent.iterdir()):
            self.folder.parent.rmdir()
