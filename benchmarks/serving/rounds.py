"""Rounds of requests to several servers in turn, and the medians of their figures."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.harness.usage import family, machine_seconds, processor_seconds, proportional_bytes, settle
from benchmarks.serving.client import Bodies, Round, ask, cores, probe
from benchmarks.serving.targets import PEERS, Target

WARMING_SECONDS = 1.0
"""Before each round, not counted: what a server has not touched for seconds, a virtual machine may have to map anew."""


@dataclass
class Measured:
    """What was seen of one server."""

    rounds: list[Round] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    """Seconds of all its processes, in each round."""
    others: list[float] = field(default_factory=list)
    """Share of the machine's processors that neither it nor the client took, in each round."""
    memory: int = 0
    """Bytes of all its processes after the last round (PSS)."""

    def figures(self, images: int) -> dict[str, Any]:
        """Medians of the rounds; `images` are those of a request."""
        rate = statistics.median(one.rate for one in self.rounds)
        costs = [1000 * seconds / one.answers for seconds, one in zip(self.processor, self.rounds, strict=True)]
        return {
            "rate": round(rate, 1),
            "images_per_second": round(rate * images, 1),
            "p50": round(statistics.median(one.p50 for one in self.rounds), 2),
            "p99": round(statistics.median(one.p99 for one in self.rounds), 2),
            "processor_ms": round(statistics.median(costs), 3),
            "memory_mb": round(self.memory / 1e6),
            "client_share": round(statistics.median(one.client_share for one in self.rounds), 3),
            "others_share": round(statistics.median(self.others), 3),
            "rates": [round(one.rate, 1) for one in self.rounds],
        }


def measure(
    targets: Sequence[Target], bodies: Bodies, connections: int, seconds: float, rounds: int
) -> dict[str, dict[str, Any]]:
    """The figures of each server, in rounds of so many seconds that they take in turn; the others pause meanwhile.

    Raises
    ------
    FailedRequests
    """
    seen = {target.name: Measured() for target in targets}
    for number in range(rounds + 1):
        start = number % len(targets)  # whoever comes first after a pause is not always the same
        for target in (*targets[start:], *targets[:start]):
            target.resume()
            pids = family(target.roots)
            if number == 0:
                probe(target.address, target.path, target.bodies or bodies)
            ask(target.address, target.path, target.bodies or bodies, min(WARMING_SECONDS, seconds), connections)
            if number:
                _add_round(seen[target.name], target, pids, target.bodies or bodies, seconds, connections)
            settle(pids)
            target.pause()
    return {name: one.figures(bodies.images) for name, one in seen.items()}


def _add_round(
    seen: Measured, target: Target, pids: Sequence[int], bodies: Bodies, seconds: float, connections: int
) -> None:
    worked, whole = processor_seconds(pids), machine_seconds()
    found = ask(target.address, target.path, bodies, seconds, connections)
    worked, whole = processor_seconds(pids) - worked, machine_seconds() - whole
    seen.rounds.append(found)
    seen.processor.append(worked)
    seen.others.append(max(0.0, whole - worked - found.client_seconds) / found.seconds / cores())
    seen.memory = proportional_bytes(pids)


def compared(servers: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Engram against its peers, by requests a second and by processor time; None where either was not measured.

    The best peer answers most requests, the cheapest takes the least processor time for one. Where others work on the
    machine, the first depends on how many processes share with them, and the second hardly does.
    """
    own = servers.get("engram")
    peers = {name: one for name, one in servers.items() if name in PEERS and PEERS[name].compared}
    best = max(peers, key=lambda name: float(peers[name]["rate"]), default=None)
    cheapest = min(peers, key=lambda name: float(peers[name]["processor_ms"]), default=None)
    found: dict[str, Any] = {"best_peer": best, "ratio": None, "cheapest_peer": cheapest, "processor_ratio": None}
    if own is not None and best is not None and cheapest is not None:
        found["ratio"] = round(own["rate"] / peers[best]["rate"], 3)
        found["processor_ratio"] = round(peers[cheapest]["processor_ms"] / own["processor_ms"], 3)
    return found
