"""Costs and quality after 1 to 20 tasks: answers in stages, learning, storage, requests a second.

    python -m benchmarks growth --data DIR [--colour] [--backbone cnn] [--width 1] [--recipe N] [--tasks 1,2,5,10,20]
        [--contenders 1,2,3,all] [--images 400] [--test 100] [--parts answers,http] [--set NAME=VALUE]
        [--store DIR] [--out FILE.jsonl] [--plot FILE.svg]

The twenty tasks stand in `benchmarks.growth.tasks`. Each is uploaded to a store on disk and learned by a worker's
attempt in a process of its own, whose bytes, memory and seconds are counted. After each number of `--tasks` the version
is loaded as a service loads it, and asked; with `http` in `--parts` also behind a running service. `--store` keeps what
was learned: a second run with the same folder goes on with it, and measures its answers again.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from benchmarks.growth.answers import BATCH, Batches, Contenders, quality, staged, timings
from benchmarks.growth.serving import requests
from benchmarks.growth.store import GrowthStore
from benchmarks.growth.tasks import GROWTH_TASKS, dataset, digest, examples
from benchmarks.harness.datasets import MissingData
from benchmarks.harness.evaluation import provenance
from benchmarks.harness.plan import BadOverride, overridden
from benchmarks.harness.results import append, rows_of
from benchmarks.reports.growth import picture, table
from engram import Definition, Examples, LearnOptions
from engram.errors import EngramError
from engram.runtime import configure
from testing.servers.redis import RedisServer
from vault.errors import VaultError

PARTS = ("answers", "http")
BUDGET = 24.0
"""Multiple of one task's units: enough for twenty tasks that give nothing back."""


def numbers(text: str) -> tuple[int, ...]:
    """Numbers of tasks, ascending, such as `1,2,5`."""
    found = tuple(sorted({int(part) for part in text.split(",")}))
    if not found or found[0] < 1 or found[-1] > len(GROWTH_TASKS):
        raise argparse.ArgumentTypeError(f"from 1 to {len(GROWTH_TASKS)} tasks")
    return found


def contenders(text: str) -> tuple[Contenders, ...]:
    """Numbers of contenders, or "all", such as `1,2,all`."""
    return tuple("all" if part == "all" else int(part) for part in text.split(","))


def parts(text: str) -> tuple[str, ...]:
    """What is measured beside learning; empty for nothing."""
    found = tuple(part for part in text.split(",") if part)
    if unknown := set(found) - set(PARTS):
        raise argparse.ArgumentTypeError(f"no part is called {', '.join(sorted(unknown))}: there are {PARTS}")
    return found


def test_images(text: str) -> int:
    """A number of test images of a task, enough for a batch of them."""
    if (count := int(text)) < BATCH:
        raise argparse.ArgumentTypeError(f"at least {BATCH}, which is a batch")
    return count


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(prog="python -m benchmarks growth", description="Costs by the number of tasks")
    found.add_argument("--data", type=Path, required=True, help="folder with mnist.npz, or cifar10.tar.xz in colour")
    found.add_argument("--colour", action="store_true", help="CIFAR-10 instead of MNIST")
    found.add_argument("--backbone", default="cnn", choices=["cnn", "resnet18", "mlp"])
    found.add_argument("--width", type=float, default=1.0)
    found.add_argument("--recipe", type=int, help="by default that of new models")
    found.add_argument("--tasks", type=numbers, default=(1, 2, 5, 10, 20), help="after how many it is measured")
    found.add_argument("--contenders", type=contenders, default=(1, 2, 3, "all"))
    found.add_argument("--images", type=int, default=400, help="training images of a task")
    found.add_argument("--test", type=test_images, default=100, help="test images of a task")
    found.add_argument("--parts", type=parts, default=PARTS, help="of answers,http; learning is always measured")
    found.add_argument("--seconds", type=float, default=1.0, help="of each timing; four times as long over HTTP")
    found.add_argument("--seed", type=int, default=0, help="of the model")
    found.add_argument("--threads", type=int, default=1)
    found.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", dest="overrides", help="override")
    found.add_argument("--store", type=Path, help="folder to keep what was learned in")
    found.add_argument("--out", type=Path, help="append one JSON line for each number of tasks")
    found.add_argument("--plot", type=Path, help="SVG of all rows of --out, or of this run")
    return found


def model(args: argparse.Namespace) -> tuple[Definition, LearnOptions]:
    """The definition and the options of learning; raises BadOverride and ValidationError."""
    shape = {"channels": 3, "height": 32, "width": 32} if args.colour else {"channels": 1, "height": 28, "width": 28}
    fields: dict[str, Any] = {"backbone": args.backbone, "width": args.width, "budget": BUDGET}
    if args.recipe is not None:
        fields["recipe"] = args.recipe
    fields, options = overridden(fields, {}, args.overrides)
    return Definition.model_validate({**fields, "input": shape, "seed": args.seed}), LearnOptions(**options)


def described(args: argparse.Namespace, definition: Definition, options: LearnOptions) -> dict[str, Any]:
    """The fields of a row that say what was measured."""
    return {
        "benchmark": "growth",
        "data": "CIFAR-10" if args.colour else "MNIST",
        "backbone": definition.backbone,
        "width": definition.width,
        "recipe": definition.recipe,
        "overrides": list(args.overrides),
        "images": args.images,
        "test": args.test,
        "seed": args.seed,
        "task_list": digest(),
        "definition": definition.model_dump(mode="json"),
        "options": options.model_dump(mode="json"),
        **provenance(args.threads),
        "command": told(sys.argv[1:], args),
    }


def told(words: Sequence[str], args: argparse.Namespace) -> str:
    """The command as results name it, without where data and stores lie on this machine."""
    places = {str(args.data): "DIR", str(args.store): "STORE"}
    return f"python -m benchmarks growth {shlex.join(places.get(word, word) for word in words)}"


def answered(store: GrowthStore, count: int, tests: Sequence[Examples], args: argparse.Namespace) -> dict[str, Any]:
    """Timings and quality of the version with so many tasks."""
    memory, first = store.memory(count), store.memory(1)
    known: Sequence[Contenders] = args.contenders if staged(memory) else ("all",)
    every = torch.cat([part.images for part in tests])
    names = [info.name for info in memory.tasks]
    return {
        "staged": staged(memory),
        "milliseconds": timings(memory, first, Batches.of(tests), every, known, args.seconds),
        "quality": quality(memory, names, tests, known),
    }


@contextmanager
def opened(args: argparse.Namespace, definition: Definition, options: LearnOptions) -> Iterator[GrowthStore]:
    """The store of a run, with a Redis."""
    with ExitStack() as parts:
        redis = RedisServer()
        parts.callback(redis.remove)
        folder = args.store or Path(parts.enter_context(tempfile.TemporaryDirectory(prefix="engram-growth-")))
        options_given = options.model_dump(mode="json", exclude_unset=True)
        store = GrowthStore(folder, redis.url, definition, options_given, args.threads)
        parts.callback(store.close)
        yield store


def run(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One row of results for each number of tasks, as soon as it is measured."""
    definition, options = model(args)
    about, data = described(args, definition, options), dataset(args.data, args.colour)
    tests: list[Examples] = []
    with opened(args, definition, options) as store:
        for count, task in enumerate(GROWTH_TASKS[: args.tasks[-1]], start=1):
            train, test = examples(data, task, args.images, args.test)
            learned = store.learn(task.name(data.classes), train)
            tests.append(test)
            print(f"task {count}, {learned['task']}: learned in {learned['seconds']} s", file=sys.stderr, flush=True)
            if count in args.tasks:
                row: dict[str, Any] = {**about, "tasks": count, "learning": learned}
                if "answers" in args.parts:
                    row |= answered(store, count, tests, args)
                if "http" in args.parts:
                    mixed = torch.cat([part.images[:: max(1, len(part) // 8)] for part in tests])
                    row["http"] = requests(store.folder, count, store.head, mixed, 4 * args.seconds, args.threads)
                yield row


def show(rows: Sequence[Mapping[str, Any]]) -> None:
    print(table(rows))


def main(arguments: Sequence[str] | None = None) -> None:
    args = parser().parse_args(arguments)
    configure(args.threads)
    rows: list[dict[str, Any]] = []
    try:
        for row in run(args):
            rows.append(row)
            if args.out:
                append(args.out, row)
    except (MissingData, BadOverride, EngramError, VaultError) as error:
        sys.exit(str(error))
    except ValidationError as error:
        sys.exit("\n".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()))
    show(rows)
    if args.plot:
        picture(rows_of(args.out) if args.out else rows, args.plot)
