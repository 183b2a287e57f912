"""The interface against its own document: every check of Schemathesis, thousands of requests made up from it.

    python -m benchmarks schema [--examples 2000] [--seed 0] [--out results.jsonl]

A service that asks for keys, with a model that has learned two tasks, is asked what the document says may be asked and
much that it says may not. Two rounds: one where every path names that model, one where names are made up too and
models come and go; there a sequence of requests has no idempotency key twice (`fresh_keys`). No answer may be a 5xx or
undocumented, no header missing, nothing accepted that the document rules out, nothing answered without the key.
"""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.drills.record import parser, record
from service.settings import ServiceSettings
from tests.conftest import RedisServer
from tests.learned import MODEL, TASKS, create, learn
from tests.service.doors import token
from tests.service.running import running
from vault.settings import VaultSettings
from vault.vault import Vault

OPERATIONS = 22
"""About how many there are, to share the examples out."""

CONFIG = """
[checks.positive_data_acceptance]
# A schema cannot say that a cursor must have been given, an image must have the model's channels, a layer must be one
# of the model's, that data may lie under some prefixes only (403), or how much a body may hold in all (413).
expected-statuses = ["2xx", "401", "403", "404", "409", "413", "422", "429"]

[checks.negative_data_rejection]
# Too many images are 413.
expected-statuses = ["400", "401", "403", "404", "405", "406", "413", "415", "422", "428", "5xx"]
"""
FRESH_KEYS = "benchmarks.drills.fresh_keys"
SAME_MODEL = f"""
[parameters]
"path.model" = "{MODEL}"
"""


@contextmanager
def service() -> Iterator[tuple[str, str]]:
    """The address of a service that asks for keys, and a key to everything."""
    redis = RedisServer()
    try:
        with tempfile.TemporaryDirectory() as folder:
            store = str(Path(folder) / "store")
            with Vault.connect(VaultSettings(store_url=store, redis_url=redis.url)) as vault:
                create(vault)
                for task, digits in TASKS.items():
                    learn(vault, task, digits)
            settings = ServiceSettings(store_url=store, redis_url=redis.url, drain_seconds=0, keys="required")
            with running(settings) as found:
                yield found.url, token(found.vault, "admin")
    finally:
        redis.remove()


def ask(
    address: str, key: str, examples: int, seed: int, config: str, *options: str, hooks: str | None = None
) -> dict[str, Any]:
    """One run of Schemathesis with so many examples for each operation: its counts, and what it said."""
    # In a folder without this package, so it is told where that is.
    paths = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "SCHEMATHESIS_HOOKS": hooks} if hooks else {}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "schemathesis.toml").write_text(config)
        done = subprocess.run(
            [
                *(sys.executable, "-m", "schemathesis.cli", "run", f"{address}/openapi.json"),
                *("--header", f"Authorization: Bearer {key}", "--checks", "all", "--continue-on-failure", "--no-color"),
                *("--max-examples", str(examples), "--seed", str(seed), "--generation-database", "none"),
                *("--suppress-health-check", "all", "--request-timeout", "120", *options),
            ],
            cwd=folder,
            env=os.environ | paths,
            capture_output=True,
            text=True,
        )
    return {"status": done.returncode, "said": done.stdout + done.stderr, **counts(done.stdout)}


def counts(said: str) -> dict[str, Any]:
    """The numbers at the end of what Schemathesis says."""
    cases = re.search(r"^\s*(\d+) generated", said, re.MULTILINE)
    tested = re.search(r"^\s*Tested: (\d+)", said, re.MULTILINE)
    failures = dict(re.findall(r"❌ (ST\d+ [^:]+): (\d+)", said))
    return {
        "cases": int(cases[1]) if cases else 0,
        "operations": int(tested[1]) if tested else 0,
        "failures": {what: int(number) for what, number in failures.items()},
    }


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
