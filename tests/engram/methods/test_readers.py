"""Readers of a model while it learns: every answer is that of the model before, or of the model after."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from engram import Memory
from engram.certificate import certify
from engram.memory import dump
from testing.data.patterns import QUICK, bars
from tests.engram.methods.test_methods import SLOWLY, again, answers_of, parts_of, probes


class Reader:
    """A thread that reads a model over and over, and notes what it was told."""

    def __init__(self, read: Callable[[], object]) -> None:
        self.read = read
        self.seen: list[object] = []
        self.error: BaseException | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._over.is_set():
                found = self.read()
                if found not in self.seen:
                    self.seen.append(found)
        except BaseException as error:
            self.error = error

    def stop(self) -> None:
        self._over.set()
        self._thread.join()


@contextmanager
def hurried() -> Iterator[None]:
    """Threads take turns as often as Python lets them."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


@pytest.mark.parametrize("name", SLOWLY)
def test_what_reads_while_a_task_is_learned_is_told_of_the_model_before_or_after(name: str) -> None:
    memory = again(parts_of(name))
    image = probes(memory)[0]
    reads: list[Callable[[], object]] = [
        lambda: memory.predict(probes(memory), top_k=3),
        lambda: memory.explain(image).relevance.tolist(),
        lambda: certify(memory),
        lambda: dump(memory),
    ]
    before = [read() for read in reads]
    with hurried():
        readers = list(map(Reader, reads))
        memory.learn("task 2", bars(2), QUICK)
        for reader in readers:
            reader.stop()
    for reader, earlier, read in zip(readers, before, reads, strict=True):
        if reader.error is not None:
            raise reader.error
        assert all(found in (earlier, read()) for found in reader.seen)


@pytest.mark.parametrize("name", SLOWLY)
def test_a_reader_that_took_the_model_before_keeps_it_whole(name: str) -> None:
    memory = again(parts_of(name))
    reader, before = Memory(memory.method.current()), answers_of(memory)
    memory.learn("task 2", bars(2), QUICK)
    assert [info.name for info in memory.tasks] == ["task 0", "task 1", "task 2"]
    assert answers_of(reader) == before
    assert dump(reader) == parts_of(name)
