"""Exactness laws and figures of a GPU, beside the processor's.

    python -m benchmarks device [--rows cnn28,cnn32,resnet18] [--tasks 2] [--devices cpu,cuda] [--images 1,32]
        [--seconds 2] [--rounds 2] [--connections 32] [--threads 1] [--data DIR] [--cache DIR] [--out FILE.jsonl]

For machines that have a GPU, in a few minutes; where there is none, `cuda` is left out, which is said. Models are those
of `serving`, learned on the processor and kept; each device loads them as a service does that answers on it.

*Laws* are said with a task's logits, byte for byte, in each shape that they are computed in: `earlier` what older tasks
answer before and after the last was learned; `again` three times in a row; `rows` whatever an image's row and its
neighbours; `loaded` after the version was loaded once more; `commons` the features of learned filters, against the
processor's; `near` within the bound of certificates from the processor's; `alike` the share of images with the same
task and label as there. *Milliseconds* are of `Memory.predict` for so many images, *requests* of a service over HTTP
with so many images each. *Learning* is of two tasks, with the held-out accuracy of the second; *mixed* the same
with the option `mixed_precision`, on devices that have bfloat16. The status is 1 where a law does not hold.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.growth.command import numbers
from benchmarks.growth.store import MODEL
from benchmarks.growth.tasks import GROWTH_TASKS, examples
from benchmarks.harness.datasets import MissingData
from benchmarks.harness.evaluation import provenance
from benchmarks.harness.results import append
from benchmarks.serving.bare import pixels
from benchmarks.serving.client import Bodies, FailedRequests, forms
from benchmarks.serving.command import FILE_WIDTH, rows
from benchmarks.serving.networks import NETWORKS, ServedNetwork, learned_from, sized
from benchmarks.serving.rounds import measure
from benchmarks.serving.stores import OPTIONS, TEST, TRAIN, ServedStore, StoreCache, default_cache
from benchmarks.serving.targets import NotStarted, engram
from engram import LearnOptions, Memory
from engram.certificate import disagreement, logit_bytes
from engram.methods.eidetic.staged.method import StagedEidetic
from engram.nn.commons.grid_commons import GridCommons
from engram.runtime import configure, has_bf16, prepare
from service.models.loaded import load
from testing.servers.redis import RedisServer
from vault.settings import VaultSettings
from vault.vault import Vault

CPU = torch.device("cpu")
LARGEST = 16
"""Images by which laws are said."""

Logits = Mapping[str, Mapping[int, Tensor]]
"""By task and shape."""
Laws = dict[str, bool | float | None]
"""Whether each holds, or for what share; None where it says nothing."""


def devices(text: str) -> tuple[str, ...]:
    """Names of devices."""
    found = tuple(part for part in text.split(",") if part)
    if unknown := [part for part in found if part not in ("cpu", "cuda")]:
        raise argparse.ArgumentTypeError(f"no device is called {', '.join(unknown)}: there are cpu and cuda")
    return found


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(prog="python -m benchmarks device", description="A GPU beside the processor")
    found.add_argument("--rows", type=rows, default=("cnn28", "cnn32", "resnet18"), help="networks")
    found.add_argument("--tasks", type=int, default=2, help="that a model has learned, two at least")
    found.add_argument("--devices", type=devices, default=("cpu", "cuda"))
    found.add_argument("--images", type=numbers, default=(1, 32), help="of a call, and of a request")
    found.add_argument("--seconds", type=float, default=2.0, help="of a round")
    found.add_argument("--rounds", type=int, default=2)
    found.add_argument("--connections", type=int, default=32)
    found.add_argument("--threads", type=int, default=1, help="of PyTorch")
    found.add_argument("--data", type=Path, help="folder with weights, and images if there are any; else digits")
    found.add_argument("--cache", type=Path, default=default_cache(), help="folder where models are kept")
    found.add_argument("--out", type=Path, help="append one JSON line for each network and device")
    return found


def served(vault: Vault, model: str, version: int, device: torch.device) -> Memory:
    """A version as a service loads it that answers on a device."""
    return load(vault, vault.models.get(model), vault.log.read(model, version), None, device).memory


def logits(memory: Memory, images: Tensor, tasks: Sequence[str]) -> Logits:
    return memory.method.logits_by_shape(tasks, images)


def same(some: Logits, others: Logits) -> bool:
    """Whether logits are the same bytes, of all tasks and shapes that both have."""
    pairs = [(one, others[task][shape]) for task in some.keys() & others.keys() for shape, one in some[task].items()]
    return all(logit_bytes(one) == logit_bytes(other) for one, other in pairs)


def same_rows(memory: Memory, images: Tensor, task: str) -> bool:
    """Whether each image's logits are the same bytes in any row and among any neighbours, in each shape."""
    for shape in memory.method.shapes:
        some, found = images[:shape], memory.method.logits_in_shape(task, images[:shape], shape)
        for turn in (1, shape // 2):
            turned = memory.method.logits_in_shape(task, some.roll(turn, 0), shape)
            if logit_bytes(turned) != logit_bytes(found.roll(turn, 0)):
                return False
        for row in (0, shape - 1):
            alone = torch.zeros_like(some)
            alone[row] = some[row]
            if logit_bytes(memory.method.logits_in_shape(task, alone, shape)[row]) != logit_bytes(found[row]):
                return False
    return True


def features(memory: Memory, images: Tensor) -> Tensor | None:
    """What learned filters see, (B, F) on the processor; None where the commons are not these alone."""
    method = memory.method
    if not isinstance(method, StagedEidetic) or not isinstance(method.commons, GridCommons):
        return None
    return method.commons.look(images.to(method.device)).features


def laws(vault: Vault, model: str, version: int, device: torch.device, images: Tensor) -> Laws:
    """Which laws hold on a device for a version, whose last task the one before it did not have."""
    memory, before = (served(vault, model, number, device) for number in (version, version - 1))
    names, some = [info.name for info in memory.tasks], images[:LARGEST]
    found = logits(memory, some, names)
    earlier = [info.name for info in before.tasks]
    reference = served(vault, model, version, CPU)
    theirs, precision = logits(reference, some, names), memory.definition.precision
    pairs = [(theirs[name][shape], one) for name in names for shape, one in found[name].items()]
    here, there = features(memory, some), features(reference, some)
    answers = zip(memory.predict(images), reference.predict(images), strict=True)
    return {
        "earlier": same(logits(before, some, earlier), found),
        "again": all(same(logits(memory, some, names), found) for _ in range(2)),
        "rows": all(same_rows(memory, images, name) for name in names),
        "loaded": same(logits(served(vault, model, version, device), some, names), found),
        "commons": None if here is None or there is None else torch.equal(here, there),
        "near": all(disagreement(logit_bytes(its), logit_bytes(one), precision) is None for its, one in pairs),
        "alike": statistics.mean(float((a.task, a.label) == (b.task, b.label)) for a, b in answers),
    }


def milliseconds(memory: Memory, images: Tensor, count: int, seconds: float, rounds: int) -> float:
    """Of one call with so many images: the fastest round by the clock, after one that sets things up."""
    given, best = images[torch.arange(count) % len(images)], float("inf")
    for number in range(rounds + 1):
        began, calls = time.perf_counter(), 0
        while time.perf_counter() < began + seconds / 4:
            memory.predict(given)
            calls += 1
        if number:
            best = min(best, (time.perf_counter() - began) / calls)
    return round(1000 * best, 3)


def requests(
    network: ServedNetwork, stored: ServedStore, device: str, count: int, args: argparse.Namespace
) -> dict[str, Any]:
    """The figures of a service on a device, asked by requests of so many images; raises FailedRequests, NotStarted."""
    with tempfile.TemporaryDirectory(prefix="engram-device-") as name:
        folder, redis = Path(name), RedisServer()
        bodies = Bodies(stored.images, network.kind, 1)
        if count > 1:
            bodies = forms(stored.images, folder / "forms", count, network.kind)
        try:
            with engram(stored, redis, folder, args.threads, device=device) as starting:
                target = starting.wait()
                found = measure([target], bodies, args.connections, args.seconds, args.rounds)
        finally:
            redis.remove()
    return found[target.name]


def learning(
    network: ServedNetwork, device: torch.device, data: Path | None, *, mixed: bool = False
) -> dict[str, float]:
    """Seconds of learning two tasks on a device, perhaps in mixed precision, and the second's held-out accuracy."""
    dataset = learned_from(network, data)
    memory = Memory.create(network.definition(network.task_width), network.backbones).to(device)
    options = LearnOptions(**OPTIONS, mixed_precision=mixed)
    began, reports = time.perf_counter(), []
    for task in GROWTH_TASKS[:2]:
        train, _ = (sized(part, network.side) for part in examples(dataset, task, TRAIN, TEST))
        reports.append(memory.learn(task.name(dataset.classes), train, options))
    seconds = time.perf_counter() - began
    return {"seconds": round(seconds, 2), "accuracy": round(reports[-1].accuracy["kept"], 4)}


def measured(network: ServedNetwork, stored: ServedStore, name: str, args: argparse.Namespace) -> dict[str, Any]:
    """The row of a network on a device."""
    device, images = torch.device(name), pixels(stored.images)
    prepare(device)
    with Vault.connect(VaultSettings(store_url=str(stored.store))) as vault:
        found: dict[str, Any] = {"laws": laws(vault, MODEL, stored.tasks, device, images)}
        memory = served(vault, MODEL, stored.tasks, device)
    found["environment"] = memory.method.environment()
    found["ms"] = {str(n): milliseconds(memory, images, n, args.seconds, args.rounds) for n in args.images}
    found["requests"] = {str(n): requests(network, stored, name, n, args) for n in args.images}
    torch.use_deterministic_algorithms(False)  # workers learn without
    found["learning"] = learning(network, device, args.data)
    found["mixed"] = learning(network, device, args.data, mixed=True) if has_bf16(device) else None
    return found


def run(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The rows, network after network."""
    cache = StoreCache(args.cache, args.data)
    for name in args.rows:
        network = NETWORKS[name].over(args.data)
        stored = cache.stored(network, max(2, args.tasks))
        for device in args.devices:
            about = {"benchmark": "device", "network": name, "device": device, "tasks": stored.tasks}
            yield {**about, **measured(network, stored, device, args), **provenance(args.threads)}


def table(found: Sequence[Mapping[str, Any]]) -> Table:
    """The figures of one network, a column for each device."""
    made = Table("", *(row["device"] for row in found), title=found[0]["network"], title_justify="left")
    for law in found[0]["laws"]:
        made.add_row(law, *(_said(row["laws"][law]) for row in found))
    for count in found[0]["ms"]:
        made.add_row(f"{count} images, ms", *(f"{row['ms'][count]:.2f}" for row in found))
    for count in found[0]["requests"]:
        rates = (f"{row['requests'][count]['images_per_second']:.0f}" for row in found)
        made.add_row(f"requests of {count}, images a second", *rates)
    for kind, named in (("learning", "learning"), ("mixed", "learning in mixed precision")):
        told = [row[kind] for row in found]
        made.add_row(f"{named}, seconds", *("–" if each is None else f"{each['seconds']:.1f}" for each in told))
        accuracies = ("–" if each is None else f"{each['accuracy']:.1%}" for each in told)
        made.add_row("accuracy of the second task", *accuracies)
    return made


def _said(law: bool | float | None) -> str:
    if law is None:
        return "–"
    return ("holds" if law else "DOES NOT HOLD") if isinstance(law, bool) else f"{law:.1%}"


def main(arguments: Sequence[str] | None = None) -> int:
    args = parser().parse_args(arguments)
    configure(args.threads)
    if "cuda" in args.devices and not torch.cuda.is_available():
        print("cuda is left out: PyTorch finds no GPU here", file=sys.stderr)
        args.devices = tuple(name for name in args.devices if name != "cuda")
        if not args.devices:
            return 1
    console = Console(width=None if sys.stdout.isatty() else FILE_WIDTH)
    found: list[dict[str, Any]] = []
    try:
        for row in run(args):
            found.append(row)
            if args.out:
                append(args.out, row)
            if row["device"] == args.devices[-1]:
                console.print(table([one for one in found if one["network"] == row["network"]]))
    except (MissingData, FailedRequests, NotStarted) as error:
        sys.exit(str(error))
    return int(any(law is False for row in found for law in row["laws"].values()))
