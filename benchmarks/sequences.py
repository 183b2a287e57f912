"""Command of the task sequences: runs of one method by seed, and a table of their figures."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol

from pydantic import ValidationError
from rich.console import Console

from benchmarks.baselines.unsuited import Unsuited
from benchmarks.harness.datasets import SEQUENCES, MissingData, Tasks
from benchmarks.harness.evaluation import BenchmarkLearner, BenchmarkProgress, measure, provenance
from benchmarks.harness.http_learner import HttpMemory
from benchmarks.harness.learners import PythonMemory
from benchmarks.harness.plan import BadOverride, Plan, make_plan
from benchmarks.harness.presets import BASELINES, METHODS, OVER_NETWORKS
from benchmarks.harness.progress_bars import ProgressBars
from benchmarks.harness.remembered_commons import FOLDER
from benchmarks.harness.results import UnfinishedRun, append, rows_of
from benchmarks.reports.tables import grouped, terminal_table
from engram.errors import EngramError
from engram.runtime import configure


def parser(benchmark: str, description: str) -> argparse.ArgumentParser:
    """The options of every task sequence."""
    found = argparse.ArgumentParser(prog=f"python -m benchmarks {benchmark}", description=description)
    found.add_argument("--data", type=Path, required=True, help="folder with mnist.npz, cifar10.tar.xz, ...")
    found.add_argument("--method", default="eidetic", choices=[*METHODS, *BASELINES])
    found.add_argument("--scale", default="small", choices=["small", "paper"])
    found.add_argument("--seeds", type=int, default=1, help="how many, from 0")
    found.add_argument("--device", default="cpu")
    found.add_argument("--threads", type=int, default=2)
    found.add_argument("--http", action="store_true", help="through the service instead of the Python interface")
    found.add_argument("--out", type=Path, help="append one JSON line per seed; runs that it has are skipped")
    found.add_argument(
        "--cache", type=Path, default=FOLDER, help="where it is kept what a pretrained network saw of images"
    )
    found.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", dest="overrides", help="override")
    return found


def main(benchmark: str, description: str, given: Sequence[str]) -> None:
    """Run a sequence of tasks as the command line says."""
    args = parser(benchmark, description).parse_args(given)
    if args.http and (args.method in BASELINES or args.device != "cpu"):
        sys.exit("--http runs the service on this machine's processor, which serves the product's methods only")
    if benchmark in OVER_NETWORKS and args.method != "eidetic":
        sys.exit(f"{benchmark} is for eidetic alone: no other method learns over a network's features")
    configure(args.threads)
    interface = "http" if args.http else "python"
    try:
        plans = [
            make_plan(benchmark, args.method, args.scale, interface, args.device, seed, args.overrides)
            for seed in range(args.seeds)
        ]
        for plan in plans:
            plan.learning()  # invalid options are reported before the data is read
        command = f"python -m benchmarks {benchmark} {shlex.join(given)}"
        rows = run_all(plans, args.data, args.out, args.threads, command, args.cache)
    except (MissingData, BadOverride, Unsuited, EngramError) as error:
        sys.exit(str(error))
    except ValidationError as error:
        sys.exit("\n".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()))
    Console().print(terminal_table(grouped(rows)))


def run_all(
    plans: Sequence[Plan], data: Path, out: Path | None, threads: int, command: str, seen: Path = FOLDER
) -> list[dict[str, Any]]:
    """Results of the runs of one benchmark: read from `out` if it has them, else made now and appended."""
    rows: list[dict[str, Any]] = []
    tasks: Tasks | None = None
    for plan in plans:
        done = [row for row in rows_of(out) if row.get("key") == plan.key] if out else []
        if done:
            print(f"{plan.method}, seed {plan.seed}: already in {out}", flush=True)
            rows.append(done[-1])
            continue
        if tasks is None:
            tasks = SEQUENCES[plan.benchmark](data, plan.sizes)
        figures = run(plan, tasks, UnfinishedRun(out, plan.key) if out else None, seen)
        row = {**described(plan, tasks), **provenance(threads), "command": command, **figures}
        rows.append(row)
        if out:
            append(out, row)
            UnfinishedRun(out, plan.key).clear()
    return rows


def described(plan: Plan, tasks: Tasks) -> dict[str, object]:
    """The fields of a row of results that describe its run."""
    definition = plan.model(tasks.shape)
    settings = plan.definition.get("settings", {}) if plan.method in BASELINES else getattr(definition, "settings", {})
    return {
        "benchmark": plan.benchmark,
        "method": plan.method,
        "scale": plan.scale,
        "interface": plan.interface,
        "seed": plan.seed,
        "key": plan.key,
        "backbone": definition.backbone,
        "overrides": list(plan.overrides),
        "definition": definition.model_dump(mode="json"),
        "settings": settings,
        "options": plan.learning().model_dump(mode="json"),
        "images": {
            "train": [len(examples) for examples in tasks.train],
            "test": [len(examples) for examples in tasks.test],
        },
        "device": plan.device,
    }


def run(plan: Plan, tasks: Tasks, unfinished: UnfinishedRun | None, seen: Path = FOLDER) -> dict[str, object]:
    """Make one run, resumed from its last kept memory if it was interrupted; returns its figures."""
    progress = unfinished.progress() if unfinished else None
    if progress is not None:
        print(f"{plan.method}, seed {plan.seed}: going on after {len(progress.seconds)} tasks", flush=True)
    folder = unfinished.memory(progress) if unfinished and progress else None
    with closing(learner(plan, tasks, folder, seen)) as memory, ProgressBars(plan, len(tasks.train)) as bars:

        def keep(progress: BenchmarkProgress) -> None:
            if unfinished is not None and isinstance(memory, PythonMemory):
                memory.save(unfinished.memory(progress))
                unfinished.keep(progress)

        return measure(memory, tasks, progress, bars.watch, keep)


class ClosableLearner(BenchmarkLearner, Protocol):
    """A learner that is closed after its run."""

    def close(self) -> None: ...


def learner(plan: Plan, tasks: Tasks, folder: Path | None, seen: Path) -> ClosableLearner:
    """The learner of a plan; `folder` holds the memory of an interrupted run, `seen` what networks saw of images."""
    definition, options = plan.model(tasks.shape), plan.learning()
    if plan.method in BASELINES:
        from benchmarks.baselines.learner import Baseline  # needs the extra `benchmarks`, unlike the others

        return Baseline(plan.method, definition, options, tasks, plan.definition.get("settings", {}), plan.device)
    if plan.interface == "http":
        return HttpMemory(definition, options, tasks.backbones)
    return PythonMemory(definition, options, plan.device, folder, tasks.backbones, seen)
