"""The retention certificate: digests of what every task answers to a fixed probe batch, and where they were made."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from engram.definition import InputShape
from engram.memory import Memory
from engram.runtime import environment

PROBES = 32
"""Images of the probe batch: half seeded noise, half patterns. Never anybody's data."""

SEED = 20250213


def probe_batch(shape: InputShape) -> Tensor:
    """The fixed probe images (PROBES, C, H, W) uint8: noise, then stripes, ramps, discs and checks."""
    generator = torch.Generator().manual_seed(SEED)
    half = PROBES // 2
    size = (shape.channels, shape.height, shape.width)
    noise = torch.randint(0, 256, (half, *size), generator=generator, dtype=torch.uint8)
    rows = torch.linspace(-1, 1, shape.height)[:, None].expand(shape.height, shape.width)
    columns = torch.linspace(-1, 1, shape.width)[None, :].expand(shape.height, shape.width)
    patterns = []
    for number in range(PROBES - half):
        frequency, kind = 1 + number // 4, number % 4
        wave = (
            torch.sin(3 * frequency * rows),
            torch.sin(3 * frequency * columns),
            torch.where(rows.square() + columns.square() < 1 / frequency, 1.0, -1.0),
            torch.sign(torch.sin(5 * frequency * rows) * torch.sin(5 * frequency * columns)),
        )[kind]
        shifts = torch.arange(shape.channels)[:, None, None] * 0.25
        patterns.append(((wave * 0.5 + 0.5 - shifts * wave.abs()).clamp(0, 1) * 255).to(torch.uint8))
    return torch.cat([noise, torch.stack(patterns)])


def digest(logits: Tensor) -> str:
    """SHA-256 of the bytes of float32 logits."""
    return hashlib.sha256(logits.detach().to(torch.float32).contiguous().cpu().numpy().tobytes()).hexdigest()


@dataclass(frozen=True)
class Certificate:
    """For every task a digest of its logits on the probe batch, and the environment that they hold in.

    Two certificates of one model may only be compared if their environments agree; `routing` reports what the
    recogniser did when each task was learned, which exactness does not cover.
    """

    tasks: dict[str, str]
    environment: dict[str, object]
    routing: dict[str, dict[str, float]] = field(default_factory=dict)
    exact: bool = True

    def to_dict(self) -> dict[str, object]:
        return {
            "format": 1,
            "exact": self.exact,
            "probes": {"images": PROBES, "seed": SEED},
            "tasks": [{"task": task, "logits_sha256": value} for task, value in self.tasks.items()],
            "environment": self.environment,
            "routing": self.routing,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, object]) -> Certificate:
        tasks, routing, where = data["tasks"], data["routing"], data["environment"]
        assert isinstance(tasks, list), "a certificate lists its tasks"
        assert isinstance(routing, dict), "a certificate has routing figures"
        assert isinstance(where, dict), "a certificate names its environment"
        return cls({row["task"]: row["logits_sha256"] for row in tasks}, where, routing, bool(data["exact"]))


def certify(memory: Memory, routing: Mapping[str, dict[str, float]] | None = None) -> Certificate:
    """Run the probe batch through every task, here and now."""
    tasks = {}
    if memory.tasks:
        observation = memory.observe(probe_batch(memory.definition.input))
        tasks = {info.name: digest(observation.logits(info.name)) for info in memory.tasks}
    return Certificate(tasks, environment(memory.device), dict(routing or {}))


def compare(old: Certificate, new: Certificate) -> list[str]:
    """Names of the old certificate's tasks whose digest the new one does not repeat."""
    return [task for task, value in old.tasks.items() if new.tasks.get(task) != value]
