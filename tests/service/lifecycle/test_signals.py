"""Tests of signals as an exception in the main thread."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from service.app import create_app
from service.lifecycle import signals
from service.lifecycle.signals import SIGNALS, Stopped, stop_if_asked, stop_on_signals, undivided, while_heeding
from service.server.server import Server, listen
from service.settings import ServiceSettings
from testing.servers.service import PATIENCE

pytestmark = pytest.mark.parametrize("number", SIGNALS)


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    signals._came = False
    for number, handler in before.items():
        signal.signal(number, handler)


def swallowed(number: int) -> None:
    try:
        signal.raise_signal(number)
    except BaseException:  # as code does that nobody here wrote
        return
    pytest.fail("the signal raised nothing")


def test_a_signal_that_was_swallowed_is_not_forgotten(number: int) -> None:
    stop_on_signals()
    stop_if_asked()
    swallowed(number)
    with pytest.raises(Stopped):
        stop_if_asked()


def test_a_server_does_not_begin_after_a_signal_that_was_swallowed(number: int) -> None:
    stop_on_signals()
    swallowed(number)
    with listen("127.0.0.1", 0) as listening, pytest.raises(Stopped):
        Server(create_app(ServiceSettings())).run(sockets=[listening])


def test_what_is_undivided_is_finished_first(number: int) -> None:
    stop_on_signals()
    done = []

    def work() -> None:
        with undivided():
            with undivided():
                signal.raise_signal(number)
            done.append(number)

    with pytest.raises(Stopped):
        work()
    assert done == [number]
    with pytest.raises(Stopped):
        stop_if_asked()


def test_what_hangs_is_left_behind(number: int) -> None:
    stop_on_signals()
    over = threading.Event()

    def hang() -> None:
        os.kill(os.getpid(), number)
        over.wait(PATIENCE)

    with pytest.raises(Stopped):
        while_heeding(hang)
    assert not over.is_set()
    over.set()


def test_what_hangs_is_left_behind_for_a_signal_that_was_swallowed(number: int) -> None:
    stop_on_signals()
    over = threading.Event()

    def swallow_and_hang() -> None:
        signals._came = True  # as after `swallowed`, which takes the main thread
        over.wait(PATIENCE)

    with pytest.raises(Stopped):
        while_heeding(swallow_and_hang)
    over.set()


def test_what_comes_of_the_work_is_passed_on(number: int) -> None:
    stop_on_signals()
    assert while_heeding(lambda: number) == number
    with pytest.raises(TimeoutError, match="the work's own"):
        while_heeding(_too_late)


def _too_late() -> None:
    raise TimeoutError("the work's own")
