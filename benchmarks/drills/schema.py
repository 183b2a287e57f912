"""The interface against its own document: every check of Schemathesis, thousands of requests made up from it.

    python -m benchmarks schema [--examples 2000] [--seed 0] [--out results.jsonl]

A service that asks for keys, with a model that has learned two tasks, is asked what the document says may be asked and
much that it says may not. Two rounds: one where every path names that model, one where names are made up too and
models come and go; there a sequence of requests has no idempotency key twice (`fresh_keys`). No answer may be a 5xx or
undocumented, no header missing, nothing accepted that the document rules out, nothing answered without the key.
"""

from __future__ import annotations

import logging
import sys
import time
from typing import Any

from benchmarks.drills.record import parser, record
from testing.drills.api_fuzzing import CONFIG, FRESH_KEYS, SAME_MODEL, ask, service

OPERATIONS = 22
"""About how many there are, to share the examples out."""


def run(examples: int, seed: int) -> dict[str, Any]:
    """Both rounds, about `examples` made-up requests in all: the figures, and whatever went wrong."""
    each = max(1, examples // (2 * OPERATIONS))
    began = time.monotonic()
    with service() as (address, key):
        rounds = [
            ask(address, key, each, seed, CONFIG + SAME_MODEL, "--exclude-method", "DELETE"),
            # Models are deleted here until nothing is ready, as the 503 of /readyz then says.
            ask(address, key, each, seed + 1, CONFIG, "--exclude-path", "/readyz", hooks=FRESH_KEYS),
        ]
    failed = [one["said"] for one in rounds if one["status"] != 0]
    return {
        "cases": sum(one["cases"] for one in rounds),
        "operations": max(one["operations"] for one in rounds),
        "failures": {what: number for one in rounds for what, number in one["failures"].items()},
        "rounds_failed": len(failed),
        "seconds": round(time.monotonic() - began, 1),
        "said": "\n".join(failed),
    }


def main() -> None:
    options = parser("The interface against its own document")
    options.add_argument("--examples", type=int, default=2000, help="for all operations and both rounds together")
    given = options.parse_args()
    logging.disable(logging.CRITICAL)  # thousands of refusals
    figures = run(given.examples, given.seed)
    print(figures.pop("said"), file=sys.stderr)
    record("schema", {"examples": given.examples, **figures}, given.out)
    sys.exit(bool(figures["rounds_failed"]))


if __name__ == "__main__":
    main()
