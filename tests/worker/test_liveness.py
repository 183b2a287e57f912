"""Tests of the signs of a worker's consumer: the file, the check that reads it, and the watchdog."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from testing.processes.processes import eventually
from worker import liveness
from worker.liveness import ConsumerWatch, Pulse, check


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder for temporary files that no other worker of this machine uses."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(liveness, "_TICK_SECONDS", 0.01)
    monkeypatch.setattr(liveness, "_ASK_SECONDS", 0.02)


def test_a_machine_without_workers_is_not_well() -> None:
    well, (line,) = check()
    assert not well
    assert line.startswith("no worker of this user runs here")


def test_a_worker_is_well_once_and_as_long_as_its_consumer_is_heard() -> None:
    pulse = Pulse()
    assert check() == (False, [f"worker {os.getpid()}: its consumer has not been heard yet"])
    pulse.show()
    assert check() == (True, [f"worker {os.getpid()}: its consumer was heard 0 s ago"])
    (file,) = liveness.folder().iterdir()
    os.utime(file, (file.stat().st_mtime - 45,) * 2)
    assert check(30) == (False, [f"worker {os.getpid()}: its consumer was heard 45 s ago"])
    assert check(60)[0]
    pulse.close()
    assert list(liveness.folder().iterdir()) == []


def test_what_a_killed_worker_left_is_none_of_the_others_business(tmp_path: Path) -> None:
    lines = "import os, signal; from worker.liveness import Pulse; Pulse().show(); os.kill(os.getpid(), signal.SIGKILL)"
    subprocess.run([sys.executable, "-c", lines], env={**os.environ, "TMPDIR": str(tmp_path)})
    assert len(list(liveness.folder().iterdir())) == 1
    pulse = Pulse()
    pulse.show()
    assert check()[0]
    assert len(list(liveness.folder().iterdir())) == 1
    pulse.close()


def test_a_folder_that_others_may_write_to_is_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    liveness.folder().mkdir()
    liveness.folder().chmod(0o777)
    pulse = Pulse()
    pulse.show()
    pulse.close()
    assert list(liveness.folder().iterdir()) == []
    assert "is not a folder of this user alone" in caplog.text


@contextmanager
def watched(
    busy: Callable[[], bool], reachable: Callable[[], bool]
) -> Iterator[tuple[Pulse, ConsumerWatch, threading.Event]]:
    """A watchdog that loses patience after a fifth of a second, over a consumer that was heard once."""
    deaf = threading.Event()
    pulse = Pulse()
    watchdog = ConsumerWatch(pulse, busy, reachable, 0.2, lambda _: deaf.set())
    watchdog.start()
    pulse.beat()
    yield pulse, watchdog, deaf
    watchdog.stop()
    pulse.close()


def no() -> bool:
    return False


def yes() -> bool:
    return True


def test_silence_while_the_broker_answers_others_is_deafness() -> None:
    with watched(busy=no, reachable=yes) as (_, watchdog, deaf):
        assert deaf.wait(60)
        assert watchdog.deaf > 0.2


def test_silence_while_nobody_is_answered_is_none() -> None:
    with watched(busy=no, reachable=no) as (_, watchdog, deaf):
        assert eventually(lambda: watchdog.silent > 1.0, 60)
        assert not deaf.is_set()


def test_only_the_time_since_the_broker_came_back_counts() -> None:
    away = threading.Event()
    away.set()
    with watched(busy=no, reachable=lambda: not away.is_set()) as (_, watchdog, deaf):
        assert eventually(lambda: watchdog.silent > 0.5, 60)
        away.clear()
        assert deaf.wait(60)
        assert watchdog.silent > watchdog.deaf + 0.3


def test_a_worker_at_work_need_not_be_heard_and_is_well() -> None:
    with watched(busy=yes, reachable=yes) as (_, watchdog, deaf):
        (file,) = liveness.folder().iterdir()
        for _ in range(3):
            os.utime(file, (1, 1))
            assert eventually(lambda: check(30)[0], 60)
        assert watchdog.silent == 0
        assert not deaf.is_set()


def test_a_consumer_that_was_never_heard_still_waits_for_its_first_connection() -> None:
    deaf = threading.Event()
    pulse = Pulse()
    watchdog = ConsumerWatch(pulse, no, yes, 0.2, lambda _: deaf.set())
    watchdog.start()
    assert eventually(lambda: watchdog.silent > 1.0, 60)
    assert not deaf.is_set()
    assert not check()[0]
    watchdog.stop()
    pulse.close()
