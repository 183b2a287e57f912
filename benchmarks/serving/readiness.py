"""Seconds from the start of a service with one small model until it is ready, files warm and cold.

    python -m benchmarks readiness [--starts 5] [--row cnn28] [--processes 1] [--threads 1] [--cold]
        [--data DIR] [--cache DIR] [--out FILE.jsonl]

A replica over the kept store of `serving` with one task, and a Redis that runs already; a start is over when `/readyz`
answers 200. With `--cold`, before each start Linux is told to forget what it holds in memory of the files of Python,
of the installed packages, of this project and of the store; what other programs have mapped stays, so that a machine
on which nothing else runs PyTorch is colder. *Read* are the bytes that came from the disk, *processor seconds* what all
processes of the service computed until then, which other work on the machine hardly changes.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx

from benchmarks.growth.store import ROOT
from benchmarks.harness.datasets import MissingData
from benchmarks.harness.evaluation import provenance
from benchmarks.harness.results import append
from benchmarks.harness.usage import family, processor_seconds, proportional_bytes
from benchmarks.serving.networks import NETWORKS
from benchmarks.serving.stores import ServedStore, StoreCache, default_cache
from benchmarks.serving.targets import LOADING_SECONDS, NotStarted, environment
from service.lifecycle.processes import spawn, stop
from testing.processes.processes import eventually, reserved_port
from testing.servers.redis import RedisServer

LIMITS = {"cold": 5.0, "warm": 2.0}
"""Seconds that a start may take."""


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(prog="python -m benchmarks readiness", description="Seconds until it is ready")
    found.add_argument("--starts", type=int, default=5)
    found.add_argument("--row", choices=sorted(NETWORKS), default="cnn28", help="network of the model")
    found.add_argument("--processes", type=int, default=1)
    found.add_argument("--threads", type=int, default=1, help="of PyTorch")
    found.add_argument("--cold", action="store_true", help="files are read from the disk")
    found.add_argument("--data", type=Path, help="folder with weights, and images if there are any; else digits")
    found.add_argument("--cache", type=Path, default=default_cache(), help="folder where models are kept")
    found.add_argument("--out", type=Path, help="append a JSON line")
    return found


def forget(places: Sequence[Path]) -> None:
    """Have Linux hold nothing of the files in some folders in memory, but what programs have mapped."""
    os.sync()
    for place in places:
        for folder, _, names in os.walk(place):
            for name in names:
                with suppress(OSError):
                    file = os.open(Path(folder) / name, os.O_RDONLY)
                    try:
                        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
                    finally:
                        os.close(file)


def read_bytes(pids: Sequence[int]) -> int:
    """Bytes that processes had from the disk."""
    found = 0
    for pid in pids:
        with suppress(OSError):
            rows = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
            found += int(rows["read_bytes"])
    return found


def start(stored: ServedStore, redis: RedisServer, args: argparse.Namespace) -> dict[str, float]:
    """The figures of one start; raises NotStarted."""
    with tempfile.TemporaryDirectory(prefix="engram-readiness-") as folder, reserved_port() as port:
        settings = {"ENGRAM_STORE_URL": str(stored.store), "ENGRAM_REDIS_URL": redis.url, "TMPDIR": folder}
        settings |= {"ENGRAM_TORCH_THREADS": str(args.threads), "ENGRAM_DRAIN_SECONDS": "0"}
        command = [sys.executable, "-P", "-m", "service", "service", "--port", str(port)]
        command += ["--processes", str(args.processes)]
        path = Path(folder) / "service.log"
        with path.open("wb") as log:
            began = time.monotonic()
            process = spawn(command, environment(1, **settings), stdout=log.fileno(), stderr=log.fileno())
            try:
                ready = eventually(lambda: process.poll() is not None or _is_ready(port), LOADING_SECONDS)
                seconds = time.monotonic() - began
                if not ready or process.poll() is not None:
                    raise NotStarted(f"the service is not ready: {path.read_text(errors='replace')[-2000:]}")
                pids = family([process.pid])
                memory, read, worked = proportional_bytes(pids), read_bytes(pids), processor_seconds(pids)
            finally:
                stop(process, 60)
    return {
        "seconds": round(seconds, 3),
        "processor_seconds": round(worked, 2),
        "memory_mb": round(memory / 1e6),
        "read_mb": round(read / 1e6),
    }


def _is_ready(port: int) -> bool:
    with suppress(httpx.HTTPError):
        return httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=10).status_code == 200
    return False


def starts(args: argparse.Namespace, stored: ServedStore) -> Iterator[dict[str, float]]:
    """The figures of one start after the other."""
    paths = sysconfig.get_paths()
    places = [Path(paths[name]) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    redis = RedisServer()
    try:
        if not args.cold:
            start(stored, redis, args)  # which reads all files, and is not counted
        for _ in range(args.starts):
            if args.cold:
                forget([*places, ROOT, stored.folder])
            yield start(stored, redis, args)
    finally:
        redis.remove()


def main(arguments: Sequence[str] | None = None) -> None:
    args = parser().parse_args(arguments)
    try:
        stored = StoreCache(args.cache, args.data).stored(NETWORKS[args.row].over(args.data), 1)
        found = []
        for figures in starts(args, stored):
            found.append(figures)
            print(", ".join(f"{name} {value}" for name, value in figures.items()), flush=True)
    except (MissingData, NotStarted) as error:
        sys.exit(str(error))
    files = "cold" if args.cold else "warm"
    middle = {name: statistics.median(one[name] for one in found) for name in found[0]}
    told = f"ready after {middle['seconds']} s (median of {len(found)}), limit {LIMITS[files]} s"
    print(f"{files}: {told}; {middle['processor_seconds']} s of a processor, {middle['memory_mb']} MB (PSS)")
    row: dict[str, Any] = {
        "benchmark": "readiness",
        "network": args.row,
        "files": files,
        "processes": args.processes,
        **middle,
        "starts": [one["seconds"] for one in found],
        **provenance(args.threads),
    }
    if args.out:
        append(args.out, row)
