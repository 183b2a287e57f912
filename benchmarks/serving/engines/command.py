"""Milliseconds of the parts of an answer by PyTorch, its compiler, OpenVINO and ONNX Runtime.

    python -m benchmarks engines [--rows mlp28,cnn28,cnn32,resnet18-whole,lite0] [--images 1,4,16,32] [--threads 1,2]
        [--engines folded,inductor,openvino,onnxruntime] [--tasks 1] [--seconds 0.2] [--rounds 5]
        [--data DIR] [--cache DIR] [--out FILE.jsonl]

An answer is the commons, the ridge of all classes over these, and the network of each task that contends. Commons and
networks are also given to engines that compile or run a graph of plain operations, in float32, one stream, with the
same threads. *Rows alike*: whether what an image gets depends on its place or its neighbours in the batch, which no
answer may. *Apart*: how far values lie from today's, in multiples of the largest. Models are those of `serving`. What
is not installed is left out (`pip install openvino onnx onnxscript onnxruntime`; the compiler needs g++).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from benchmarks.growth.command import numbers
from benchmarks.harness.datasets import MissingData
from benchmarks.harness.evaluation import provenance
from benchmarks.harness.results import append
from benchmarks.reports.engines import terminal_table
from benchmarks.serving.bare import memory_of, pixels
from benchmarks.serving.command import FILE_WIDTH, rows
from benchmarks.serving.engines.engines import ENGINES, installed, prepared
from benchmarks.serving.engines.parts import Part, Run, apart, parts, rows_alike
from benchmarks.serving.networks import NETWORKS, ServedNetwork
from benchmarks.serving.stores import StoreCache, default_cache
from engram import Memory
from engram.runtime import configure
from testing.servers.redis import RedisServer

TODAY = "today"


def engines(text: str) -> tuple[str, ...]:
    """Names of engines."""
    found = tuple(part for part in text.split(",") if part)
    if unknown := [part for part in found if part not in ENGINES]:
        raise argparse.ArgumentTypeError(f"no engine is called {', '.join(unknown)}: there are {', '.join(ENGINES)}")
    return found


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(prog="python -m benchmarks engines", description="Parts of an answer by engine")
    found.add_argument("--rows", type=rows, default=("mlp28", "cnn28", "cnn32", "resnet18-whole"), help="networks")
    found.add_argument("--images", type=numbers, default=(1, 4, 16, 32), help="numbers of images, up to 32")
    found.add_argument("--threads", type=numbers, default=(1, 2))
    found.add_argument("--engines", type=engines, default=tuple(installed()), help=f"of {', '.join(ENGINES)}")
    found.add_argument("--tasks", type=int, default=1, help="that the model has learned")
    found.add_argument("--seconds", type=float, default=0.2, help="of a round")
    found.add_argument("--rounds", type=int, default=5, help="of which the fastest counts")
    found.add_argument("--data", type=Path, help="folder with weights, and images if there are any; else digits")
    found.add_argument("--cache", type=Path, default=default_cache(), help="folder where models are kept")
    found.add_argument("--out", type=Path, help="append one JSON line for each row")
    return found


def milliseconds(calls: Mapping[str, Run], given: Tensor, seconds: float, rounds: int) -> dict[str, float]:
    """Of each call the mean of the fastest of several rounds, which they take in turn.

    With one thread by the processor's time, which other work on the machine hardly changes, else by the clock.
    """
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    least = dict.fromkeys(calls, float("inf"))
    for number in range(rounds + 1):
        for name, call in calls.items():
            began, count, until = clock(), 0, time.perf_counter() + seconds
            while time.perf_counter() < until or not count:
                call(given)
                count += 1
            if number:  # the first sets things up
                least[name] = min(least[name], (clock() - began) / count)
    return {name: round(1000 * value, 4) for name, value in least.items()}


def followed(run: Run, part: Part) -> Run:
    """What an engine computes, and what becomes of it."""
    after = part.after
    return run if after is None else lambda given: after(run(given))


def in_batches(run: Run, largest: int) -> Run:
    """The same for more images, so many at a time."""
    return lambda given: tuple(
        torch.cat(column) for column in zip(*(run(some) for some in torch.split(given, largest)), strict=True)
    )


def measured(part: Part, count: int, threads: int, args: argparse.Namespace) -> dict[str, Any]:
    """The figures of one part for so many images."""
    given = part.given[:count].clone()
    example = given[: part.largest].clone()
    wanted = part.today(given)
    calls: dict[str, Run] = {TODAY: part.today}
    apart_by, alike, seconds, failed = {}, {TODAY: rows_alike(part.today, given)}, {}, {}
    for name in args.engines if part.plain is not None else ():
        assert part.plain is not None, "there is something to prepare"
        began = time.perf_counter()
        try:
            run = followed(prepared(name, part.plain, example, threads), part)
        except Exception as error:  # each engine has its own; the row says which
            failed[name] = f"{type(error).__name__}: {error}".splitlines()[0][:200]
            continue
        seconds[name] = round(time.perf_counter() - began, 2)
        calls[name] = run if len(example) == count else in_batches(run, part.largest)
        apart_by[name] = apart(calls[name](given), wanted)
        alike[name] = rows_alike(calls[name], given)
    found = milliseconds(calls, given, args.seconds, args.rounds)
    return {"ms": found, "apart": apart_by, "rows_alike": alike, "prepared_in": seconds, "failed": failed}


def whole(memory: Memory, images: Tensor, args: argparse.Namespace) -> dict[str, Any]:
    """The figures of whole answers."""

    def answered(some: Tensor) -> tuple[Tensor, ...]:
        memory.predict(some)
        return ()

    return {"ms": milliseconds({TODAY: answered}, images, args.seconds, args.rounds)}


def run(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """A row of results for each network, number of threads and number of images."""
    cache = StoreCache(args.cache, args.data)
    for name in args.rows:
        network: ServedNetwork = NETWORKS[name].over(args.data)
        stored = cache.stored(network, args.tasks)
        redis = RedisServer()
        try:
            memory = memory_of(network, stored, redis.url)
        finally:
            redis.remove()
        images = pixels(stored.images)
        for threads in args.threads:
            torch.set_num_threads(threads)
            for count in args.images:
                with torch.inference_mode(False), torch.no_grad():
                    found = {part.name: measured(part, count, threads, args) for part in parts(memory, images)}
                    found["whole"] = whole(memory, images[:count].clone(), args)
                yield {
                    "benchmark": "engines",
                    "network": name,
                    "tasks": args.tasks,
                    "images": count,
                    "threads": threads,
                    "parts": found,
                    **provenance(threads),
                }


def main(arguments: Sequence[str] | None = None) -> None:
    args = parser().parse_args(arguments)
    configure(1)
    console = Console(width=None if sys.stdout.isatty() else FILE_WIDTH)
    try:
        for row in run(args):
            console.print(terminal_table(row))
            if args.out:
                append(args.out, row)
    except MissingData as error:
        sys.exit(str(error))
