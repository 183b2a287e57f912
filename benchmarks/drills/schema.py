"""Drill of the HTTP interface against its OpenAPI document, by every check of Schemathesis.

    python -m benchmarks schema [--examples 2000] [--seed 0] [--out results.jsonl]

A service that requires keys, with a model of two tasks, gets thousands of generated requests, valid and invalid by the
document, in two rounds: one in which every path names that model, and one in which names are generated too and models
come and go; there no sequence of requests repeats an idempotency key (`testing.drills.fresh_keys`). No answer may be a
5xx or undocumented, no header missing, no invalid request accepted, and nothing answered without the key.
"""

from __future__ import annotations

import logging
import sys
import time
from typing import Any

from benchmarks.drills.record import parser, record
from testing.drills.api_fuzzing import CONFIG, FRESH_KEYS, SAME_MODEL, keyed_service, run_schemathesis

OPERATIONS = 45
"""Approximate number of operations, by which the examples are divided."""


def run(examples: int, seed: int) -> dict[str, Any]:
    """Run both rounds with about `examples` requests in all; returns the figures, and the output of failed rounds."""
    each = max(1, examples // (2 * OPERATIONS))
    # What has nothing to answer with is rightly not ready, for which there is 503; keys are not revoked under its feet.
    kept = ("--exclude-path-regex", "^/(readyz|v2/.*/ready|v1/keys/.*)$")
    began = time.monotonic()
    with keyed_service() as (address, key):
        rounds = [
            run_schemathesis(address, key, each, seed, CONFIG + SAME_MODEL, "--exclude-method", "DELETE", *kept),
            run_schemathesis(address, key, each, seed + 1, CONFIG, *kept, hooks=FRESH_KEYS),
        ]
    failed = [one["output"] for one in rounds if one["status"] != 0]
    return {
        "cases": sum(one["cases"] for one in rounds),
        "operations": max(one["operations"] for one in rounds),
        "failures": {what: number for one in rounds for what, number in one["failures"].items()},
        "rounds_failed": len(failed),
        "seconds": round(time.monotonic() - began, 1),
        "output": "\n".join(failed),
    }


def main() -> None:
    options = parser("schema", "The interface against its own document")
    options.add_argument("--examples", type=int, default=2000, help="for all operations and both rounds together")
    given = options.parse_args()
    logging.disable(logging.CRITICAL)  # thousands of refusals
    figures = run(given.examples, given.seed)
    print(figures.pop("output"), file=sys.stderr)
    record("schema", {"examples": given.examples, **figures}, given.out)
    sys.exit(bool(figures["rounds_failed"]))
