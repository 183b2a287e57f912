"""Results files in JSON lines, and the kept memories of unfinished runs, which resume from them."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path

from benchmarks.harness.evaluation import BenchmarkProgress

_PROGRESS_FILE = "course.json"


def rows_of(path: Path) -> list[dict[str, object]]:
    """The rows of a results file; none if it is missing."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def append(path: Path, row: dict[str, object]) -> None:
    """Append a row to a results file and flush it to disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
        file.flush()
        os.fsync(file.fileno())


class UnfinishedRun:
    """Folder beside a results file with the memory and progress of one unfinished run.

    Parameters
    ----------
    out
        The results file.
    key
        Key of the run (`Plan.key`).
    """

    def __init__(self, out: Path, key: str) -> None:
        self.folder = out.with_name(out.name + ".unfinished") / key

    def progress(self) -> BenchmarkProgress | None:
        """Progress of the run; None if nothing is kept of it."""
        path = self.folder / _PROGRESS_FILE
        return BenchmarkProgress(**json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None

    def memory(self, progress: BenchmarkProgress) -> Path:
        """Folder of the memory at this progress."""
        return self.folder / f"memory-{len(progress.seconds)}"

    def keep(self, progress: BenchmarkProgress) -> None:
        """Record the progress, whose memory is saved already, and remove older memories."""
        self.folder.mkdir(parents=True, exist_ok=True)
        unfinished = self.folder / "course.tmp"
        unfinished.write_text(json.dumps(asdict(progress)), encoding="utf-8")
        unfinished.replace(self.folder / _PROGRESS_FILE)
        for other in self.folder.glob("memory-*"):
            if other != self.memory(progress):
                shutil.rmtree(other)

    def clear(self) -> None:
        """Remove everything kept of the run."""
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.folder.parent.exists() and not any(self.folder.parent.iterdir()):
            self.folder.parent.rmdir()
