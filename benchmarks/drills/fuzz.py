"""Coverage-guided fuzzing of the parsers of untrusted bytes: archives, images, stored files.

    python -m benchmarks fuzz [--reader archive|image|manifest] [--seconds 600] [--seed 0] [--out results.jsonl]

atheris (libFuzzer for Python) records which lines of the readers and of the Python libraries below them an input
reaches, and continues from inputs that reach new ones. Any exception but our own errors is a crash; more than 20 s on
one input is a hang. Afterwards all kept inputs are read repeatedly in a fresh process: memory that grows there is a
leak, and not the fuzzer's own corpus. Of images the same process compares what each took, in time and in memory, with
the estimate by which it would be decoded beside others or apart. Needs the extra `benchmarks`.
"""

from __future__ import annotations

import base64
import gc
import importlib.util
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.drills.record import parser, record

if TYPE_CHECKING:
    from testing.drills.readers import Reader

READERS = ("archive", "image", "manifest")
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
MEMORY_LIMIT = 2048
"""MiB of the fuzzing process at most."""
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


def run(reader: str, seconds: int, seed: int) -> dict[str, Any]:
    """Fuzz one reader and replay its corpus; returns the figures."""
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus"
        corpus.mkdir()
        fuzzed = _child("fuzz", reader, corpus, seconds, seed)
        replayed = _child("replay", reader, corpus, seconds, seed).stdout.splitlines()
        kept = [int(line) for line in replayed if not line.startswith("took")]
        took = [float(word) for line in replayed if line.startswith("took") for word in line.split()[1:]]
        found = [path for path in Path(folder).iterdir() if path.is_file()]
        artifacts = [path.name for path in found]
        crashing = {path.name: base64.b64encode(path.read_bytes()).decode() for path in found}
        inputs = len(list(corpus.iterdir()))
    if fuzzed.returncode != 0 or artifacts:
        # The exception is on standard output; the inputs would be gone with the folder.
        print(fuzzed.stdout[-6000:], fuzzed.stderr[-6000:], crashing, sep="\n", file=sys.stderr)
    stats = dict(re.findall(r"stat::(\w+):\s+(\d+)", fuzzed.stderr))
    covered = re.findall(r"cov: (\d+)", fuzzed.stderr)
    return {
        "reader": reader,
        "seconds": seconds,
        "inputs": int(stats.get("number_of_executed_units", 0)),
        "edges": int(covered[-1]) if covered else 0,
        "kept": inputs,
        "slowest_seconds": int(stats.get("slowest_unit_time_sec", 0)),
        "peak_mib": int(stats.get("peak_rss_mb", 0)),
        "replayed": inputs * len(kept),
        "growth_kib": kept[-1] - kept[len(kept) // 2] if kept else None,
        "took_of_estimated_seconds": took[0] if took else None,
        "took_of_estimated_bytes": took[1] if took else None,
        "status": fuzzed.returncode,
        "crashes_hangs": artifacts,
    }


def _child(do: str, reader: str, corpus: Path, seconds: int, seed: int) -> subprocess.CompletedProcess[str]:
    words = ["--do", do, "--reader", reader, "--corpus", str(corpus), "--seconds", str(seconds), "--seed", str(seed)]
    command = [sys.executable, "-m", "benchmarks", "fuzz", *words]
    return subprocess.run(command, capture_output=True, text=True, errors="replace")


def main() -> int:
    options = parser("fuzz", "Fuzzing of what reads strangers' bytes")
    options.add_argument("--reader", choices=READERS, help="one of them alone")
    options.add_argument("--seconds", type=int, default=600, help="for each reader")
    options.add_argument("--do", choices=["fuzz", "replay"], help="a part of the drill, in a process of its own")
    options.add_argument("--corpus", type=Path, help="where inputs are kept, for a part")
    args = options.parse_args()
    if importlib.util.find_spec("atheris") is None:
        sys.exit("the fuzzer is atheris, which is not installed: pip install 'engram-vision[benchmarks]'")
    if args.do is not None:
        if args.do == "fuzz":
            fuzz(args.reader, args.corpus, args.seconds, args.seed)
        else:
            replay(args.reader, args.corpus)
        return 0
    faults = 0
    for reader in [args.reader] if args.reader else READERS:
        figures = run(reader, args.seconds, args.seed)
        faults += bool(figures["status"] or figures["crashes_hangs"])
        record("fuzz", {"seed": args.seed, **figures}, args.out)
    return int(bool(faults))
