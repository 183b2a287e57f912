"""Bare loops: a model called again and again by Python, without HTTP, decoding or processes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.growth.store import GrowthStore
from benchmarks.serving.networks import ServedNetwork
from benchmarks.serving.peers.network import network_of
from benchmarks.serving.stores import OPTIONS, ServedStore
from engram import Memory

BATCH = 32


def pixels(folder: Path) -> Tensor:
    """(32, C, H, W) uint8: the first image files of a folder."""
    images = []
    for file in sorted(folder.iterdir())[:BATCH]:
        with Image.open(file) as image:
            values = torch.from_numpy(np.array(image))
        images.append(values[None] if values.ndim == 2 else values.permute(2, 0, 1))
    return torch.stack(images)


def per_second(calls: dict[str, Callable[[], object]], seconds: float, rounds: int) -> dict[str, float]:
    """Images a second of calls that take a batch each: medians of rounds that they take in turn."""
    seen: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + 1):
        for name, call in calls.items():
            began, count = time.perf_counter(), 0
            while time.perf_counter() < began + seconds:
                call()
                count += BATCH
            if number:  # the first sets things up
                seen[name].append(count / (time.perf_counter() - began))
    return {name: round(statistics.median(rates), 1) for name, rates in seen.items()}


def memory_of(network: ServedNetwork, stored: ServedStore, redis_url: str) -> Memory:
    """The newest version of a kept store, as a service loads it."""
    definition = network.definition(network.task_width)
    store = GrowthStore(stored.folder, redis_url, definition, OPTIONS, 1, network.backbones)
    try:
        return store.memory(stored.tasks)
    finally:
        store.close()


def loops(network: ServedNetwork, stored: ServedStore, redis_url: str, seconds: float, rounds: int) -> dict[str, Any]:
    """Images a second of the peers' network and of Engram's model, 32 at a time, by one thread."""
    images = pixels(stored.images)
    plain = network_of(network.plan(stored.labels, 0, 1, 1))
    memory = memory_of(network, stored, redis_url)
    with torch.inference_mode():
        return per_second({"network": lambda: plain(images), "engram": lambda: memory.predict(images)}, seconds, rounds)
