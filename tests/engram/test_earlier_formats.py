"""Tests of models saved by earlier versions, which answer as before and go on learning.

`files/format-1` was written by commit 05a0969, `files/format-2` by commit 0ab2d93: two tasks of `bars` each, and what
they answered to the probe batch.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from engram import Memory
from engram.certificate import certify, compare, digest, probe_batch
from engram.memory import dump
from engram.methods.eidetic.method import Eidetic
from testing.data.learned_digests import machine
from testing.data.patterns import QUICK, bars

FORMAT_1 = Path(__file__).parent / "files" / "format-1"
FORMAT_2 = Path(__file__).parent / "files" / "format-2"


@pytest.mark.parametrize(("name", "channels"), [("grey", 1), ("colour", 3)])
def test_models_of_the_first_format_answer_as_they_did(name: str, channels: int, tmp_path: Path) -> None:
    memory = Memory.load(FORMAT_1 / name)
    expected = json.loads((FORMAT_1 / name / "answers.json").read_text())
    seen = memory.observe(probe_batch(memory.definition.input))
    assert [info.name for info in memory.tasks] == list(expected["logits"]) == ["task 0", "task 1"]
    for task, logits in expected["logits"].items():
        torch.testing.assert_close(seen.logits(task), torch.tensor(logits), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(seen.log_tasks, torch.tensor(expected["log_tasks"]), rtol=1e-4, atol=1e-4)

    method = memory.method
    assert isinstance(method, Eidetic)
    assert method.recogniser.scatter is None, "novelty is measured as it was when the model was saved"

    before = certify(memory)
    for task in (2, 3):
        memory.learn(f"task {task}", bars(task, channels=channels), QUICK)
    assert compare(before, certify(memory)) == []
    assert [profile.combined is not None for profile in method.recogniser.profiles] == [False, False, True, True]
    answers = [answer for task in range(4) for answer in memory.predict(bars(task, 10, channels=channels).images)]
    assert sum(answer.task == f"task {number // 20}" for number, answer in enumerate(answers)) / len(answers) > 0.6
    memory.save(tmp_path)
    assert dump(Memory.load(tmp_path)) == dump(memory)


@pytest.mark.parametrize("method", sorted(path.name for path in FORMAT_2.iterdir()))
def test_models_of_every_method_answer_as_they_did_and_learn_on(method: str) -> None:
    memory = Memory.load(FORMAT_2 / method)
    expected = json.loads((FORMAT_2 / method / "answers.json").read_text())
    seen = memory.observe(probe_batch(memory.definition.input))
    for task, logits in expected["logits"].items():
        torch.testing.assert_close(seen.logits(task), torch.tensor(logits), rtol=1e-4, atol=1e-4)
        if machine() == expected["machine"]:
            assert digest(seen.logits(task)) == expected["digests"][task]
    torch.testing.assert_close(seen.log_tasks, torch.tensor(expected["log_tasks"]), rtol=1e-3, atol=1e-3)

    before = certify(memory)
    memory.learn("task 2", bars(2), QUICK)
    assert [info.name for info in memory.tasks] == ["task 0", "task 1", "task 2"]
    if memory.exact:
        assert compare(before, certify(memory)) == []
