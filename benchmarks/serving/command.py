"""Requests a second, latency, processor time and memory of the service beside its peers.

    python -m benchmarks serving [--rows mlp28,cnn28,cnn32,resnet18,lite0] [--tasks 1,5,20] [--requests 1,8,32,explain]
        [--precision fp32|bf16] [--engine eager-1|onnxruntime-1|onnxruntime-2|openvino-1]
        [--peers litserve-1,litserve-2,fastapi,empty] [--seconds 3] [--rounds 3] [--data DIR] [--cache DIR]
        [--out FILE.jsonl]

A row is one network after so many tasks, asked by requests of so many images. All servers of it run side by side and
are asked in turn, other peers pausing, in several rounds whose medians count; an answer that is no 200 ends the run.
`explain` asks for heatmaps and for predictions over one connection; `protocol` asks for the same by the Open Inference
Protocol, in its binary extension, as by the native route. Without `--requests`, every row has requests of one
image, and that with five tasks the others too. Models are learned when they are first asked for, from the digits of
scikit-learn or what `--data` has, and kept in `--cache`; `lite0` needs the weights of EfficientNet-Lite0 in `--data`.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from rich.console import Console

from benchmarks.growth.command import numbers
from benchmarks.growth.store import MODEL
from benchmarks.harness.datasets import MissingData
from benchmarks.harness.evaluation import provenance
from benchmarks.harness.results import append
from benchmarks.reports.serving import terminal_table
from benchmarks.serving import bare, rounds, targets
from benchmarks.serving.client import Bodies, FailedRequests, client_name, cores, forms, tensors
from benchmarks.serving.networks import NETWORKS, ServedNetwork
from benchmarks.serving.stores import ServedStore, StoreCache, default_cache
from benchmarks.serving.targets import FOR_LARGE, MODEL_PATH, PEERS, USUAL, NotStarted, Target
from engram.config.engines import FIRST_ENGINE, FIRST_PRECISION, EngineName, Precision
from engram.runtime import configure
from testing.servers.redis import RedisServer

CONNECTIONS = 32
IN_FLIGHT = 64
"""Images under way at once, where a request brings several."""
REQUESTS = ("1", "8", "32", "explain")
OTHERS = ("explain", "protocol")
"""Requests of one image that only the service itself is asked."""
FILE_WIDTH = 140
"""Characters of a line of tables that are written to a file."""
FULL_AT = 5
"""Tasks with which a run without `--requests` makes all of them."""


def rows(text: str) -> tuple[str, ...]:
    """Names of networks."""
    return _among(text, tuple(NETWORKS), "network")


def requests(text: str) -> tuple[str, ...]:
    """What requests bring: so many images, or one to be explained, or one by the Open Inference Protocol."""
    found = tuple(part for part in text.split(",") if part)
    if wrong := [part for part in found if part not in OTHERS and not (part.isdigit() and 1 <= int(part) <= 64)]:
        raise argparse.ArgumentTypeError(f"{', '.join(wrong)}: numbers of images up to 64, explain, or protocol")
    return found


def peers(text: str) -> tuple[str, ...]:
    """Names of peers; empty for none."""
    return _among(text, tuple(PEERS), "peer")


def _among(text: str, known: Sequence[str], what: str) -> tuple[str, ...]:
    found = tuple(part for part in text.split(",") if part)
    if unknown := [part for part in found if part not in known]:
        raise argparse.ArgumentTypeError(f"no {what} is called {', '.join(unknown)}: there are {', '.join(known)}")
    return found


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(prog="python -m benchmarks serving", description="The service beside its peers")
    found.add_argument("--rows", type=rows, default=("mlp28", "cnn28", "cnn32", "resnet18"), help="networks")
    found.add_argument("--tasks", type=numbers, default=(1, 5, 20), help="numbers of tasks, up to 20")
    found.add_argument("--requests", type=requests, help="images of a request, such as 1,8, or explain, or protocol")
    found.add_argument("--peers", type=peers, help=f"of {', '.join(PEERS)}; '' for none")
    found.add_argument("--seconds", type=float, default=3.0, help="of a round; wrk takes whole ones")
    found.add_argument("--rounds", type=int, default=3)
    found.add_argument("--threads", type=int, default=1, help="of PyTorch in Engram; peers have theirs by name")
    found.add_argument("--processes", type=int, default=1, help="of Engram; peers have theirs by name")
    found.add_argument("--precision", choices=get_args(Precision), default=FIRST_PRECISION, help="of Engram's models")
    found.add_argument("--engine", choices=get_args(EngineName), default=FIRST_ENGINE, help="of Engram's models")
    found.add_argument("--data", type=Path, help="folder with mnist.npz, cifar10.tar.xz and weights; else digits")
    found.add_argument("--cache", type=Path, default=default_cache(), help="folder where models are kept")
    found.add_argument("--out", type=Path, help="append one JSON line for each row")
    return found


def chosen_peers(args: argparse.Namespace, network: ServedNetwork) -> tuple[str, ...]:
    """The peers of a network that are installed."""
    large = FOR_LARGE if network.over_brought or network.backbone.startswith("resnet") else ()
    wanted: tuple[str, ...] = (*USUAL, *large) if args.peers is None else args.peers
    return tuple(name for name in wanted if PEERS[name].installed)


def chosen_requests(args: argparse.Namespace, tasks: int) -> tuple[str, ...]:
    """What is asked of a model of so many tasks."""
    if args.requests is not None:
        return tuple(args.requests)
    return REQUESTS if tasks == FULL_AT else REQUESTS[:1]


def connections(images: int) -> int:
    """How many connections bring requests of so many images."""
    return CONNECTIONS if images == 1 else max(2, min(CONNECTIONS, IN_FLIGHT // images))


def asked(
    kind: str, servers: Sequence[Target], network: ServedNetwork, stored: ServedStore, folder: Path
) -> tuple[list[Target], Bodies, int]:
    """Which servers are asked for a kind of request, with which bodies, over how many connections."""
    single = Bodies(stored.images, network.kind, 1)
    if kind == "explain":
        [own] = [server for server in servers if server.name == "engram"]
        explained = replace(own, name="engram, explained", path=f"{MODEL_PATH}/explain")
        return [own, explained], single, 1
    if kind == "protocol":
        [own] = [server for server in servers if server.name == "engram"]
        path, sent = f"/v2/models/{MODEL}/infer", tensors(stored.images, folder / "tensors")
        return [own, replace(own, name="engram, protocol", path=path, bodies=sent)], single, connections(1)
    images = int(kind)
    if images == 1:
        return list(servers), single, connections(images)
    bodies = forms(stored.images, folder / f"forms-{images}", images, network.kind)
    return [server for server in servers if server.name != "empty"], bodies, connections(images)


def run(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One row of results after the other, as soon as it is measured."""
    cache = StoreCache(args.cache, args.data)
    for name in args.rows:
        network = replace(NETWORKS[name].over(args.data), precision=args.precision, engine=args.engine)
        for tasks in args.tasks:
            stored = cache.stored(network, tasks)
            with ExitStack() as parts:
                folder = Path(parts.enter_context(tempfile.TemporaryDirectory(prefix="engram-serving-")))
                redis = RedisServer()
                parts.callback(redis.remove)
                starting = [parts.enter_context(targets.engram(stored, redis, folder, args.threads, args.processes))]
                for peer in chosen_peers(args, network):
                    starting.append(parts.enter_context(targets.peer(peer, network, stored.labels, folder)))
                servers = [server.wait() for server in starting]
                for server in servers:
                    server.pause()
                loops = bare.loops(network, stored, redis.url, args.seconds / 4, args.rounds)
                for kind in chosen_requests(args, tasks):
                    several, bodies, count = asked(kind, servers, network, stored, folder)
                    figures = rounds.measure(several, bodies, count, args.seconds, args.rounds)
                    about = {**described(args, network, tasks, kind, count), "servers": figures, "bare": loops}
                    yield about | rounds.compared(figures)


def described(args: argparse.Namespace, network: ServedNetwork, tasks: int, kind: str, count: int) -> dict[str, Any]:
    """The fields of a row that say what was measured."""
    places = {str(args.data): "DIR", str(args.cache): "CACHE", str(args.out): "FILE.jsonl"}
    words = shlex.join(places.get(word, word) for word in sys.argv[1:])
    return {
        "benchmark": "serving",
        "network": network.name,
        "task_width": network.task_width,
        "peer_width": network.peer_width,
        "tasks": tasks,
        "processes": args.processes,
        "precision": args.precision,
        "engine": args.engine,
        "request": kind,
        "connections": count,
        "data": "digits" if args.data is None else "CIFAR-10" if network.colour else "MNIST",
        "client": client_name(),
        "cores": cores(),
        "rounds": [args.rounds, args.seconds],
        **provenance(args.threads),
        "command": f"python -m benchmarks serving {words}".strip(),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    args = parser().parse_args(arguments)
    configure(args.threads)
    console = Console(width=None if sys.stdout.isatty() else FILE_WIDTH)
    missing = {name for name in args.peers or (*USUAL, *FOR_LARGE) if not PEERS[name].installed}
    if missing:
        print(f"left out: {', '.join(sorted(missing))} (pip install 'engram-vision[benchmarks]')", file=sys.stderr)
    try:
        for row in run(args):
            console.print(terminal_table(row))
            if args.out:
                append(args.out, row)
    except (MissingData, FailedRequests, NotStarted) as error:
        sys.exit(str(error))
