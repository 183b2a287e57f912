"""Three classes of photographs, learned from a folder over HTTP: pretrained, or from scratch.

    python -m benchmarks photographs --data DIR [--rows NAME ...] [--images 60] [--out FILE.jsonl]

DIR holds `tf_efficientnet_lite0.safetensors`. The photographs are drawn (`harness/scenes.py`): 60 of 640 x 480 pixels
of each class to learn from, and 60 others to be asked for. Every row starts a service of its own, with one worker.
Seconds are from the upload to the version that answers; memory is the most that any one process of the worker had.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import threading
import time
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks.harness.datasets import lite0
from benchmarks.harness.evaluation import provenance
from benchmarks.harness.http_learner import HttpMemory
from benchmarks.harness.results import append
from benchmarks.harness.scenes import CLASSES, photograph
from benchmarks.harness.usage import family, processor_seconds
from engram import LearnOptions
from testing.processes.processes import children

_SCRATCH = {"channels": 3, "height": 224, "width": 224, "fit": "crop"}

ROWS: Mapping[str, dict[str, Any]] = {
    "lite0, 128 px": {"commons": {"kind": "pretrained", "backbone": "lite0", "size": 128}},
    "lite0, 224 px": {"commons": {"kind": "pretrained", "backbone": "lite0"}},
    "lite0 alone, 128 px": {
        "backbone": "none",
        "commons": {"kind": "pretrained", "backbone": "lite0", "size": 128},
    },
    "cnn from scratch, 224 px": {"backbone": "cnn", "input": _SCRATCH},
    "resnet18 from scratch, 224 px": {"backbone": "resnet18", "input": _SCRATCH},
}
"""Fields of the definition by name."""

EVERY = 0.1
"""Seconds between looks at the memory of processes."""


class PeakMemory:
    """The most bytes that any one descendant of a process had in memory, while this is entered."""

    def __init__(self, root: int) -> None:
        self.bytes = 0
        self._root = root
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        while not self._over.wait(EVERY):
            for pid in children(self._root):
                with suppress(FileNotFoundError, ProcessLookupError):
                    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
                    found = [int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:")]
                    self.bytes = max([self.bytes, *found])

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()


def write(folder: Path, images: int) -> None:
    """`<class>/<number>.jpg`, so many of each class."""
    for name in CLASSES:
        (folder / name).mkdir()
        for number in range(images):
            (folder / name / f"{number:04d}.jpg").write_bytes(photograph(name, number))


def zipped(folder: Path) -> bytes:
    """The folder as an upload."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        for path in sorted(folder.rglob("*.jpg")):
            file.write(path, path.relative_to(folder))
    return stream.getvalue()


def measured(fields: Mapping[str, Any], data: Path, upload: bytes, images: int) -> dict[str, Any]:
    """The figures of one definition."""
    over = {"lite0": lite0(data)} if "commons" in fields else {}
    memory = HttpMemory(fields, LearnOptions(), over)
    try:
        with PeakMemory(memory.pid) as peak:
            began, worked = time.monotonic(), processor_seconds(family([memory.pid]))
            report = memory.learn_archive("photographs", upload, lambda progress: None)
            seconds, worked = time.monotonic() - began, processor_seconds(family([memory.pid])) - worked
        right, asked = 0, time.monotonic()
        for name in CLASSES:
            for number in range(images, 2 * images):
                right += memory.answers([photograph(name, number)])[0].label == name
        asked = time.monotonic() - asked
    finally:
        memory.close()
    return {
        "definition": dict(fields),
        "seconds": round(seconds, 1),
        "cpu_seconds": round(worked, 1),
        "peak_bytes": peak.bytes,
        "accuracy": round(100 * right / (images * len(CLASSES)), 1),
        "seconds_an_answer": round(asked / (images * len(CLASSES)), 4),
        "held_out": report["accuracy"],
        "phases": report.get("phases"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks photographs", description="Learning from photographs")
    parser.add_argument("--data", type=Path, required=True, help="folder with tf_efficientnet_lite0.safetensors")
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--images", type=int, default=60, help="of each class to learn from")
    parser.add_argument("--out", type=Path, help="append one JSON line per row")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), args.images)
        upload = zipped(Path(folder))
    for name in args.rows:
        row = {"setting": name, "images": args.images, **measured(ROWS[name], args.data, upload, args.images)}
        print(row, flush=True)
        if args.out:
            append(args.out, {"benchmark": "photographs", **provenance(1), **row})
