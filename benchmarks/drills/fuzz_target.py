"""Process of the fuzzer, which imports what it reads, so that reached lines are seen.

    python -m benchmarks.drills.fuzz_target --do fuzz|replay --reader NAME --corpus DIR --seconds N --seed N

Nothing of ours is imported above: a module that is there already would not be instrumented.
"""

from __future__ import annotations

import argparse
import gc
import re
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from testing.drills.readers import Reader

INSTRUMENTED = {
    "archive": (
        "engram.data.archives",
        "engram.data.containers",
        "engram.data.archiving",
        "zipfile",
        "tarfile",
    ),
    "image": ("engram.data.images", "engram.data.pictures", "engram.data.cost", "engram.data.decoders", "PIL"),
    "manifest": (
        "engram.checkpointing.tensors",
        "engram.recognition.serialization",
        "engram.snapshot",
        "vault",
        "json",
        "tarfile",
    ),
}
"""Modules whose coverage guides the fuzzing of each reader."""
HANG_SECONDS = 20
MEMORY_LIMIT = 6144
"""MiB of the fuzzing process at most: what watches the lines keeps some 3 KB of each input, the replay nothing."""
REPLAYS = 12
LEAST_SECONDS = 0.05
LEAST_BYTES = 16 * 2**20
"""Smaller estimates count as these: starts and caches weigh more."""


def fuzz(reader: str, corpus: Path, seconds: int, seed: int) -> None:
    """Fuzz in this process, which the fuzzer ends."""
    import atheris

    with atheris.instrument_imports(include=list(INSTRUMENTED[reader])):
        from testing.drills.readers import LONGEST
        from testing.drills.readers import READERS as MADE

    with tempfile.TemporaryDirectory() as folder:
        made = MADE[reader](Path(folder))
        for number, seed_input in enumerate(made.seeds):
            (corpus / f"seed-{number:02d}").write_bytes(seed_input)
        options = {
            "max_total_time": seconds,
            "timeout": HANG_SECONDS,
            "rss_limit_mb": MEMORY_LIMIT,
            "max_len": LONGEST,
            "seed": seed + 1,
            "print_final_stats": 1,
        }
        words = [f"-{name}={value}" for name, value in options.items()]
        atheris.Setup(["fuzz", *words, f"-artifact_prefix={corpus.parent}/", str(corpus)], made.accepts)
        atheris.Fuzz()


def replay(reader: str, corpus: Path) -> None:
    """Read the corpus `REPLAYS` times; print the memory after each, in KiB."""
    from testing.drills.readers import READERS as MADE

    with tempfile.TemporaryDirectory() as folder:
        made = MADE[reader](Path(folder))
        inputs = [path.read_bytes() for path in sorted(corpus.iterdir())]
        for _ in range(REPLAYS):
            for data in inputs:
                made.accepts(data)
            gc.collect()
            print(_resident("VmRSS") // 1024, flush=True)
        if made.cost is not None:
            print("took", *_worst(made, inputs), flush=True)


def _worst(made: Reader, inputs: list[bytes]) -> tuple[float, float]:
    """The largest multiples of their estimates that inputs took, in processor time and in memory."""
    slowest = largest = 0.0
    for data in inputs:
        resident = _resident("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
        began = time.process_time()
        made.accepts(data)
        seconds, taken = time.process_time() - began, _resident("VmHWM") - resident
        cost = made.estimate(data)
        slowest = max(slowest, seconds / max(cost.seconds, LEAST_SECONDS))
        largest = max(largest, taken / max(cost.memory, LEAST_BYTES))
    return slowest, largest


def _resident(name: str) -> int:
    """Bytes of memory of this process, now (`VmRSS`) or at most (`VmHWM`)."""
    found = re.search(rf"{name}:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found is not None, "Linux reports the memory of a process"
    return int(found[1]) * 1024


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--do", choices=["fuzz", "replay"])
    options.add_argument("--reader", choices=tuple(INSTRUMENTED))
    options.add_argument("--corpus", type=Path)
    options.add_argument("--seconds", type=int)
    options.add_argument("--seed", type=int)
    args = options.parse_args()
    if args.do == "fuzz":
        fuzz(args.reader, args.corpus, args.seconds, args.seed)
    else:
        replay(args.reader, args.corpus)


if __name__ == "__main__":
    main()
