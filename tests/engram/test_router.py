"""A model that may keep its images recognises tasks by a router trained on them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from engram import Memory
from engram.certificate import certify, compare
from engram.errors import DamagedSnapshot
from engram.methods.eidetic import Eidetic
from engram.router import dump_images, load_images
from engram.snapshot import dump, restore
from engram.tensors import pack
from tests.engram.patterns import QUICK, bars, learned

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
    images = memory.method.images[1][1].images
    assert torch.equal(images, bars(1).images), "images are kept as they came"


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
