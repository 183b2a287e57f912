"""Tests of the served forms of staged models: built once, shared by copies, of one version each."""

from __future__ import annotations

import threading
from dataclasses import replace
from functools import partial
from itertools import chain, repeat

import pytest
import torch

from engram import Memory
from engram.checkpointing.pieces import Piece, bytes_of
from engram.checkpointing.progress import Progress
from engram.checkpointing.tensors import content_hash
from engram.errors import Cancelled, DamagedSnapshot
from engram.memory import dump, restore
from engram.methods.eidetic.staged.method import StagedEidetic
from engram.recognition.staged.observation import StagedObservation
from engram.snapshot import Parts
from testing.data.patterns import QUICK, bars
from tests.engram.methods.staged.test_laws import everything, learned, parts_of


def again(parts: Parts) -> Memory:
    return restore(parts.definition, parts.engrams, parts.recogniser, parts.kept, parts.budget)


def model(memory: Memory) -> StagedEidetic:
    assert isinstance(memory.method, StagedEidetic)
    return memory.method


def test_an_answer_prepares_the_model_and_not_only_a_copy_of_it() -> None:
    memory = again(parts_of("selected", (0, 1)))
    memory.predict(everything())
    built = model(memory).serving()
    memory.predict(everything())
    assert model(memory).serving() is built
    assert model(memory).current().serving() is built
    before = model(memory).current()
    memory.learn("task 2", bars(2), QUICK)
    assert before.serving() is built, "a copy answers as the model did when it was made"
    assert [info.name for info in before.serving().tasks] == ["task 0", "task 1"]
    assert [info.name for info in model(memory).serving().tasks] == ["task 0", "task 1", "task 2"]


def test_many_threads_that_ask_at_once_read_each_piece_once() -> None:
    parts, reads, failures = parts_of("selected", (0, 1, 2)), list[int](), list[object]()

    def piece(number: int, data: bytes | Piece) -> Piece:
        def give() -> bytes:
            reads.append(number)
            return bytes_of(data)

        return Piece(content_hash(bytes_of(data)), give)

    engrams = [piece(number, data) for number, data in enumerate(parts.engrams)]
    memory = restore(parts.definition, engrams, parts.recogniser, None, parts.budget)
    assert reads == [0], "the commons"
    expected, start = again(parts).predict(everything()), threading.Barrier(4)

    def ask(task: str | None) -> None:
        start.wait()
        if task is None and memory.predict(everything()) != expected:
            failures.append("all tasks")
        if task is not None and {one.task for one in memory.predict(everything(), task)} != {task}:
            failures.append(task)

    threads = [threading.Thread(target=ask, args=(task,)) for task in (None, None, "task 0", "task 2")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert sorted(reads) == list(range(len(parts.engrams)))


def test_answers_are_those_of_one_version_while_another_task_is_learned() -> None:
    memory, images = again(parts_of("selected", (0, 1))), everything()
    known = {2: memory.predict(images, top_k=9)}
    known[3] = again(parts_of("selected", (0, 1, 2))).predict(images, top_k=9)
    learning = threading.Thread(target=memory.learn, args=("task 2", bars(2), QUICK))
    learning.start()
    asked = 0
    while learning.is_alive():
        found = memory.predict(images, top_k=9)
        assert found in known.values()
        asked += 1
    learning.join()
    assert asked > 3
    assert memory.predict(images, top_k=9) == known[3]


def test_a_model_that_was_moved_answers_as_before() -> None:
    memory, images = again(parts_of("selected", (0, 1))), everything()
    before = memory.predict(images, top_k=4)
    assert memory.to("cpu").predict(images, top_k=4) == before


def test_progress_never_falls_and_begins_at_the_beginning() -> None:
    told: list[Progress] = []
    again(parts_of("selected", (0, 1))).learn("task 2", bars(2), QUICK, progress=told.append)
    fractions = [progress.fraction for progress in told]
    assert fractions == sorted(fractions)
    assert 0 <= fractions[0] < 0.1
    assert fractions[-1] == pytest.approx(1.0)
    phases = [phase for phase in dict.fromkeys(one.phase for one in told) if phase not in ("pruning", "recovering")]
    assert phases == ["training", "freezing", "recognising"]


def test_learning_may_be_cancelled_whenever_it_asks() -> None:
    parts, asked = parts_of("selected", (0, 1)), 0

    def count() -> bool:
        nonlocal asked
        asked += 1
        return False

    again(parts).learn("task 2", bars(2), QUICK, cancel=count)
    for last in [*range(1, asked, max(1, asked // 12)), asked]:
        memory, answers = again(parts), chain(repeat(False, last - 1), repeat(True))
        with pytest.raises(Cancelled):
            memory.learn("task 2", bars(2), QUICK, cancel=partial(next, answers))
        assert dump(memory) == parts


def test_the_task_that_answers_always_says_whether_it_knows_the_image() -> None:
    memory = again(parts_of("selected", (0, 1, 2)))
    noise = torch.randint(0, 256, (40, 1, 12, 12), generator=torch.Generator().manual_seed(7), dtype=torch.uint8)
    mixed = (everything().float() * 0.6 + noise[: len(everything())].float() * 0.4).to(torch.uint8)
    images = torch.cat([everything(), noise, mixed])
    for contenders in (1, 2):
        seen = memory.observe(images, contenders=contenders)
        assert isinstance(seen, StagedObservation)
        answers = [seen.index(one.task) for one in seen.predictions()]
        assert seen.labels is not None
        assert seen.labels.owners(seen.decided).tolist() == answers
        assert not bool(seen.p_values[torch.arange(len(images)), torch.tensor(answers)].isnan().any())


def test_pieces_that_were_exchanged_are_refused() -> None:
    parts = parts_of("selected", (0, 1))
    commons, engram, profile, another, other = parts.engrams
    for engrams in ((commons, another, profile, engram, other), (commons, engram, other, another, profile)):
        with pytest.raises(DamagedSnapshot, match="task 0"):
            again(replace(parts, engrams=engrams))
    totals, sums, pairs, detector, *rest = parts.kept
    with pytest.raises(DamagedSnapshot, match="expected sums of the kind"):
        again(replace(parts, kept=(totals, pairs, sums, detector, *rest)))


def test_a_task_that_is_read_is_not_built_for_one_that_is_asked_alone() -> None:
    whole = learned("commons", (0, 1))
    parts = dump(whole)
    engrams = [Piece(content_hash(bytes_of(one)), partial(bytes_of, one)) for one in parts.engrams]
    memory = restore(parts.definition, engrams, parts.recogniser, None, parts.budget)
    assert set(memory.method.loaded) == set()
    assert memory.predict(everything(), "task 1") == whole.predict(everything(), "task 1")
    assert memory.method.loaded == ("task 1",)
