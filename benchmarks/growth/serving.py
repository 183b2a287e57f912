"""Requests a second of a running service, for one version of a model and for its first."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from torch import Tensor

from benchmarks.growth.store import MODEL, ROOT
from benchmarks.harness.http_learner import png
from service.lifecycle.tuning import TUNING
from testing.processes.processes import eventually, plain_environment
from testing.processes.stack import started

CONNECTIONS = 32
LOADING_SECONDS = 300.0
ROUNDS = 3


def requests(store: Path, version: int, head: int, images: Tensor, seconds: float, threads: int) -> dict[str, Any]:
    """Requests a second, in the best of three rounds of so many seconds, one image each over 32 connections.

    The service and an idle worker are processes as in production, over the same store. The first version, with one
    task, is asked for in turn with it, since machines are not alike at all times.

    Parameters
    ----------
    head
        The newest version of the model.
    images
        (N, C, H, W) uint8, sent in turn.
    """
    settings = {**TUNING, "ENGRAM_STORE_URL": str(store), "ENGRAM_TORCH_THREADS": str(threads)}
    with tempfile.TemporaryDirectory(prefix="engram-growth-") as name:
        folder = Path(name)
        (folder / "images").mkdir()
        for number, image in enumerate(images):
            (folder / "images" / f"{number:04}.png").write_bytes(png(image))
        with started(folder, replicas=1, **settings) as stack:
            about = f"/v1/models/{MODEL}"

            def served() -> bool:
                answer = stack.client.get(about)
                return answer.status_code == 200 and answer.json()["version"] == head

            assert eventually(served, LOADING_SECONDS), f"version {head} is not served"
            paths = {"asked": f"{about}/predict" + ("" if version == head else f"?version={version}")}
            if version > 1:
                paths["first"] = f"{about}/predict?version=1"
            rounds: dict[str, list[dict[str, Any]]] = {which: [] for which in paths}
            for path in paths.values():
                ask(stack.replicas[0], path, folder / "images", 1.0)
            for _ in range(ROUNDS):
                for which, path in paths.items():
                    rounds[which].append(ask(stack.replicas[0], path, folder / "images", seconds))
    best = {which: max(found, key=lambda one: float(one["rate"])) for which, found in rounds.items()}
    return {
        "rate": best["asked"]["rate"],
        "p50": best["asked"]["p50"],
        "p99": best["asked"]["p99"],
        "rate_one_task": best["first"]["rate"] if version > 1 else best["asked"]["rate"],
        "connections": CONNECTIONS,
        "rounds": [ROUNDS, seconds],
    }


def ask(address: str, path: str, images: Path, seconds: float) -> dict[str, Any]:
    """One round of the load, in a process of its own."""
    words = [address, path, str(images), str(seconds), str(CONNECTIONS)]
    command = [sys.executable, "-m", "benchmarks.growth.load", *words]
    ended = subprocess.run(command, env=plain_environment(), cwd=ROOT, stdout=subprocess.PIPE, check=True)
    found: dict[str, Any] = json.loads(ended.stdout)
    return {**found, "rate": round(found["answers"] / found["seconds"], 1)}
