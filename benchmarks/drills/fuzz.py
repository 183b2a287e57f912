"""Coverage-guided fuzzing of what reads strangers' bytes: archives, images, and everything stored that names things.

    python -m benchmarks fuzz [--reader archive|image|manifest] [--seconds 600] [--seed 0] [--out results.jsonl]

atheris (libFuzzer for Python) watches which lines of the readers and of the Python libraries below them an input
reaches, and goes on from those that reach new ones. Anything but an answer or one of our own errors is a crash; more
than 20 s on one input is a hang. Afterwards all inputs that were kept are read again and again in a fresh process:
memory that grows then is a leak, and not the fuzzer's own collection. Needs the extra `benchmarks`.
"""

from __future__ import annotations

import base64
import gc
import importlib.util
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.drills.record import parser, record

READERS = ("archive", "image", "manifest")
WATCHED = {
    "archive": ("engram.data.archives", "engram.data.containers", "engram.data.decompression", "zipfile", "tarfile"),
    "image": ("engram.images", "PIL"),
    "manifest": (
        "engram.checkpointing.tensors",
        "engram.recognition.serialization",
        "engram.snapshot",
        "vault",
        "json",
        "tarfile",
    ),
}
HANG_SECONDS = 20
MOST_MEMORY = 2048
"""MiB of the fuzzing process at most."""
ROUNDS = 12


def fuzz(reader: str, corpus: Path, seconds: int, seed: int) -> None:
    """Fuzz in this process, which ends with it."""
    import atheris

    with atheris.instrument_imports(include=list(WATCHED[reader])):
        from testing.drills.readers import LONGEST
        from testing.drills.readers import READERS as MADE

    with tempfile.TemporaryDirectory() as folder:
        made = MADE[reader](Path(folder))
        for number, sound in enumerate(made.seeds):
            (corpus / f"seed-{number:02d}").write_bytes(sound)
        options = {
            "max_total_time": seconds,
            "timeout": HANG_SECONDS,
            "rss_limit_mb": MOST_MEMORY,
            "max_len": LONGEST,
            "seed": seed + 1,
            "print_final_stats": 1,
        }
        words = [f"-{name}={value}" for name, value in options.items()]
        atheris.Setup(["fuzz", *words, f"-artifact_prefix={corpus.parent}/", str(corpus)], made.try_out)
        atheris.Fuzz()


def replay(reader: str, corpus: Path) -> None:
    """Read all of the corpus `ROUNDS` times; print the memory after each, in KiB."""
    from testing.drills.readers import READERS as MADE

    with tempfile.TemporaryDirectory() as folder:
        made = MADE[reader](Path(folder))
        inputs = [path.read_bytes() for path in sorted(corpus.iterdir())]
        for _ in range(ROUNDS):
            for data in inputs:
                made.try_out(data)
            gc.collect()
            found = re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())
            assert found is not None, "Linux tells a process its memory"
            print(found[1], flush=True)


def run(reader: str, seconds: int, seed: int) -> dict[str, Any]:
    """The figures of one reader."""
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus"
        corpus.mkdir()
        said = _child("fuzz", reader, corpus, seconds, seed)
        kept = [int(line) for line in _child("replay", reader, corpus, seconds, seed).stdout.split()]
        found = [path for path in Path(folder).iterdir() if path.is_file()]
        artifacts = [path.name for path in found]
        harmful = {path.name: base64.b64encode(path.read_bytes()).decode() for path in found}
        inputs = len(list(corpus.iterdir()))
    if said.returncode != 0 or artifacts:
        # What was raised is told on standard output; the input is gone with the folder.
        print(said.stdout[-6000:], said.stderr[-6000:], harmful, sep="\n", file=sys.stderr)
    stats = dict(re.findall(r"stat::(\w+):\s+(\d+)", said.stderr))
    covered = re.findall(r"cov: (\d+)", said.stderr)
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
        "status": said.returncode,
        "crashes_hangs": artifacts,
    }


def _child(do: str, reader: str, corpus: Path, seconds: int, seed: int) -> subprocess.CompletedProcess[str]:
    words = ["--do", do, "--reader", reader, "--corpus", str(corpus), "--seconds", str(seconds), "--seed", str(seed)]
    command = [sys.executable, "-m", "benchmarks.drills.fuzz", *words]
    return subprocess.run(command, capture_output=True, text=True, errors="replace")


def main() -> int:
    options = parser("Fuzzing of what reads strangers' bytes")
    options.add_argument("--reader", choices=READERS, help="one of them alone")
    options.add_argument("--seconds", type=int, default=600, help="for each reader")
    options.add_argument("--do", choices=["fuzz", "replay"], help="a part of the drill, in a process of its own")
    options.add_argument("--corpus", type=Path, help="where inputs are kept, for a part")
    args = options.parse_args()
    if importlib.util.find_spec("atheris") is None:
        sys.exit("the fuzzer is atheris, which is not installed: pip install 'engram[benchmarks]'")
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


if __name__ == "__main__":
    sys.exit(main())
