"""Tests of the router of `eidetic`, trained on images that a model may keep."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from engram import Examples, Memory
from engram.certificate import certify, compare
from engram.checkpointing.tensors import pack
from engram.errors import DamagedSnapshot
from engram.memory import dump, restore
from engram.methods.eidetic.method import Eidetic
from engram.methods.eidetic.router import dump_images, load_images
from testing.data.patterns import QUICK, bars, learned

LONGER = QUICK.model_copy(update={"epochs": 4})


@pytest.fixture(scope="module")
def memory() -> Memory:
    return learned("cnn", tasks=3, options=LONGER, retention="data")


def test_the_router_recognises_tasks_from_kept_images(memory: Memory) -> None:
    answers = [answer for task in range(3) for answer in memory.predict(bars(task, count=20).images)]
    assert sum(answer.task == f"task {number // 40}" for number, answer in enumerate(answers)) / len(answers) > 0.9
    assert isinstance(memory.method, Eidetic)
    assert memory.method.router is not None
    assert memory.method.router.classes == ("task 0", "task 1", "task 2")
    kept = memory.method.images[1][1]
    assert kept.held_out is not None
    assert len(kept) + len(kept.held_out) == len(bars(1)), "images are kept, divided as they were learned from"
    assert {answer.passes for answer in answers} == {2}


def test_its_figures_are_those_of_images_it_has_not_seen() -> None:
    memory = learned("cnn", tasks=1, options=LONGER, retention="data")
    upside = bars(1)
    strange = Examples(bars(0).images[:20], bars(0).labels[:20], upside.classes)  # held out, and not of its kind
    report = memory.learn("task 1", replace(upside, held_out=strange), LONGER)
    found = [answer.task == "task 1" for answer in memory.predict(strange.images)]
    assert report.recognised == pytest.approx(sum(found) / 20)
    assert report.answered <= report.recognised
    assert report.given_to.get("task 1", 0) == sum(found)


def test_small_tasks_count_by_their_classes() -> None:
    memory = learned("cnn", tasks=1, options=LONGER, retention="data")
    memory.learn("task 1", bars(1, count=5), LONGER)
    answers = memory.predict(bars(1, count=20).images)
    assert sum(answer.task == "task 1" for answer in answers) / len(answers) > 0.8


def test_the_router_owns_nothing(memory: Memory) -> None:
    assert all(set(layer.owned) == {"task 0", "task 1", "task 2"} for layer in memory.capacity())
    assert [info.name for info in memory.tasks] == ["task 0", "task 1", "task 2"]


def test_answers_of_given_tasks_stay_exact(memory: Memory) -> None:
    shorter = learned("cnn", tasks=2, options=LONGER, retention="data")
    before = certify(shorter)
    shorter.learn("task 2", bars(2), LONGER)
    assert compare(before, certify(shorter)) == []
    assert dump(shorter) == dump(memory)


def test_it_is_stored_and_goes_on(memory: Memory, tmp_path: Path) -> None:
    memory.save(tmp_path)
    again = Memory.load(tmp_path)
    assert dump(again) == dump(memory)
    images = bars(1).images[:8]
    parts = dump(memory)
    served = restore(parts.definition, parts.engrams, parts.recogniser, None, parts.budget)
    assert torch.equal(served.observe(images).log_tasks, memory.observe(images).log_tasks)


def test_damaged_images_are_noticed() -> None:
    assert load_images(dump_images("a", bars(0)))[0] == "a"
    with pytest.raises(DamagedSnapshot):
        load_images(pack("images", {"task": "a"}, {"images": torch.zeros(1)}))
