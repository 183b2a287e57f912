"""Tests of the start of servers: begun again once, before anything slow is imported."""

from __future__ import annotations

import subprocess
import sys

from service.lifecycle.tuning import TUNING
from testing.processes.processes import plain_environment


def started(*words: str, **variables: str) -> list[str]:
    """Names of modules in the order in which a command imported them, in all that it was begun as."""
    environment = {name: value for name, value in plain_environment().items() if name not in TUNING} | variables
    command = [sys.executable, "-X", "importtime", "-m", "service", *words, "--help"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return [line.rpartition("|")[2].strip() for line in ended.stderr.splitlines() if line.startswith("import time:")]


def test_a_server_is_begun_again_before_the_command_line_is_imported() -> None:
    found = started("service")
    assert found.count("encodings") == 2, "two programs, one after the other"
    assert found.count("typer") == 1


def test_what_is_tuned_already_and_other_commands_are_begun_once() -> None:
    assert started("service", **TUNING).count("encodings") == 1
    assert started("models").count("encodings") == 1
