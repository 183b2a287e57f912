"""Tests of child processes and their supervisor."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from service.lifecycle.processes import FIRST_DELAY, ChildProcess, ProcessSupervisor, spawn, stop
from testing.processes.processes import alive, eventually, plain_environment
from testing.servers.service import PATIENCE

SLEEP = [sys.executable, "-c", "import time; time.sleep(300)"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(300)",
]


@pytest.fixture
def watch() -> Iterator[ProcessSupervisor]:
    watch = ProcessSupervisor(on_misset=lambda: None)
    yield watch
    watch.stop()


def test_stopping_asks_first_and_insists_later() -> None:
    with spawn(SLEEP, plain_environment()) as process:
        stop(process, PATIENCE)
        assert process.returncode == -signal.SIGTERM
    with spawn(STUBBORN, plain_environment(), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        stop(process, 0.2)
        assert process.returncode == -signal.SIGKILL


def test_a_child_makes_way_when_told_to() -> None:
    command = [sys.executable, "-c", "import os; print(os.nice(0))"]
    with spawn(command, plain_environment(), niceness=5, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert int(process.stdout.read()) >= 5


def test_a_child_dies_with_a_parent_that_is_killed() -> None:
    code = (
        "import os, sys, time; from service.lifecycle.processes import spawn; "
        f"print(spawn({SLEEP!r}, os.environ).pid, flush=True); time.sleep(300)"
    )
    with spawn([sys.executable, "-c", code], plain_environment(), stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert alive([child]) == [child]
        parent.kill()
        assert eventually(lambda: alive([child]) == [], PATIENCE)


def test_one_whose_settings_cannot_be_used_is_not_started_again() -> None:
    called = threading.Event()
    watch = ProcessSupervisor(called.set)
    child = ChildProcess("misset", [sys.executable, "-c", "raise SystemExit(78)"], plain_environment())
    try:
        watch.start(child)
        assert called.wait(PATIENCE)
        called.clear()
        assert not called.wait(2 * FIRST_DELAY)
        assert child.process is None
    finally:
        watch.stop()


def test_what_dies_young_is_restarted_ever_more_slowly(watch: ProcessSupervisor) -> None:
    child = ChildProcess("short-lived", [sys.executable, "-c", "raise SystemExit(3)"], plain_environment())
    watch.start(child)
    assert eventually(lambda: child.delay >= 1.0, PATIENCE)


def test_what_was_asked_to_stop_is_not_restarted(watch: ProcessSupervisor) -> None:
    child = ChildProcess("sleeper", SLEEP, plain_environment())
    watch.start(child)
    assert child.process is not None
    first = child.process
    watch.ask_to_stop("sleeper")
    assert eventually(lambda: first.poll() is not None, PATIENCE)
    time.sleep(1)
    assert child.process is first
