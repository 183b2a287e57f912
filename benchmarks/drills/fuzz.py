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
import importlib.util
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.drills.record import parser, record

READERS = ("archive", "image", "manifest")


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
    command = [sys.executable, "-m", "benchmarks.drills.fuzz_target", *words]
    return subprocess.run(command, capture_output=True, text=True, errors="replace")


def main() -> int:
    options = parser("fuzz", "Fuzzing of what reads strangers' bytes")
    options.add_argument("--reader", choices=READERS, help="one of them alone")
    options.add_argument("--seconds", type=int, default=600, help="for each reader")
    args = options.parse_args()
    if importlib.util.find_spec("atheris") is None:
        sys.exit("the fuzzer is atheris, which is not installed: pip install 'engram-vision[benchmarks]'")
    faults = 0
    for reader in [args.reader] if args.reader else READERS:
        figures = run(reader, args.seconds, args.seed)
        # A fuzzer that sees none of the readers' lines finds nothing in them.
        faults += bool(figures["status"] or figures["crashes_hangs"] or not figures["edges"])
        record("fuzz", {"seed": args.seed, **figures}, args.out)
    return int(bool(faults))
