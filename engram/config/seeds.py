"""Seeds of tasks, mixed from the model's, the task's and the options'."""

from __future__ import annotations

import hashlib


def number_of(task: str) -> int:
    """A number from a task's name, the same wherever it stands among the others."""
    return int.from_bytes(hashlib.sha256(task.encode()).digest()[:8], "big")


def task_seed(model: int, number: int, options: int) -> int:
    """One seed from three, well apart for neighbouring values (splitmix64's multipliers)."""
    mixed = (model * 0x9E3779B97F4A7C15 + number * 0xBF58476D1CE4E5B9 + options * 0x94D049BB133111EB) % 2**64
    return (mixed ^ (mixed >> 31)) % 2**63
