"""Schemathesis run against a service that requires keys, by its own OpenAPI document."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from service.settings import ServiceSettings
from testing.data.models import MODEL, TASKS, create, learn
from testing.data.tokens import token
from testing.servers.redis import RedisServer
from testing.servers.service import running
from vault.settings import VaultSettings
from vault.vault import Vault

CONFIG = """
[checks.positive_data_acceptance]
# A schema cannot say that a cursor must have been given, an image must have the model's channels, a layer must be one
# of the model's, that data may lie under some prefixes only (403), or how much a body may hold in all (413), nor that
# query and body must not contradict each other (400).
expected-statuses = ["2xx", "400", "401", "403", "404", "409", "413", "422", "429"]

[checks.negative_data_rejection]
# Too many images are 413.
expected-statuses = ["400", "401", "403", "404", "405", "406", "413", "415", "422", "428", "5xx"]
"""


"""Configuration of Schemathesis: which statuses the checks of its data accept."""

SAME_MODEL = f"""
[parameters]
"path.model" = "{MODEL}"
"""
"""Further configuration, under which every path names the model that exists."""

FRESH_KEYS = "testing.drills.fresh_keys"
"""Module of the hooks that keep idempotency keys from repeating in a sequence."""


@contextmanager
def keyed_service() -> Iterator[tuple[str, str]]:
    """The address of a service that requires keys, and an admin key; it has a model with two tasks."""
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


def run_schemathesis(
    address: str, key: str, examples: int, seed: int, config: str, *options: str, hooks: str | None = None
) -> dict[str, Any]:
    """Run Schemathesis with so many examples for each operation; returns its counts and its output."""
    # It runs in an empty folder, where it would not find the module of the hooks.
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
    return {"status": done.returncode, "output": done.stdout + done.stderr, **counts(done.stdout)}


def counts(output: str) -> dict[str, Any]:
    """The numbers at the end of the output of Schemathesis."""
    cases = re.search(r"^\s*(\d+) generated", output, re.MULTILINE)
    tested = re.search(r"^\s*Tested: (\d+)", output, re.MULTILINE)
    failures = dict(re.findall(r"❌ (ST\d+ [^:]+): (\d+)", output))
    return {
        "cases": int(cases[1]) if cases else 0,
        "operations": int(tested[1]) if tested else 0,
        "failures": {what: int(number) for what, number in failures.items()},
    }
