"""Tests of true labels where versions show tasks and classes by other names than the first ones."""

from __future__ import annotations

import pytest

from engram.errors import AmbiguousLabel
from engram.nn.capacity import TaskInfo
from engram.recognition.naming import Naming
from engram.training.evaluation.true_labels import TrueLabel, TrueLabels

LEARNED = (TaskInfo("a", ("x", "y")), TaskInfo("b", ("z", "y")))
PLAIN = Naming(LEARNED, LEARNED)
SHOWN = Naming(LEARNED, (TaskInfo("c", ("y", "x")), TaskInfo("b", ("n", "m"))))
"""`a` is called `c`, with its labels swapped; those of `b` are others."""


def test_a_folder_is_called_as_a_class_is_shown_or_as_it_was_learned() -> None:
    (labels,) = TrueLabels.of_versions({3: SHOWN})
    for folder, found in {
        ("n",): ("b", "n"),
        ("z",): ("b", "n"),
        ("c", "y"): ("c", "y"),
        ("a", "y"): ("c", "y"),
        ("y",): ("c", "y"),
        ("b", "y"): ("b", "m"),
    }.items():
        assert labels.of(folder) == TrueLabel(*found), "what is shown counts"
    assert labels.of(("y",), "a") == TrueLabel("c", "y")
    assert [labels.of(folder) for folder in (("q",), ("a", "q"), ("a", "n"))] == [None] * 3
    assert labels.others == {"a", "b", "c"}


def test_versions_understand_each_others_names() -> None:
    before, after = TrueLabels.of_versions({2: PLAIN, 3: SHOWN})
    assert (before.of(("n",)), after.of(("n",))) == (TrueLabel("b", "z"), TrueLabel("b", "n"))
    assert (before.of(("c", "x")), after.of(("c", "x"))) == (TrueLabel("a", "x"), TrueLabel("c", "x"))
    with pytest.raises(AmbiguousLabel, match="2 tasks of version 2"):
        before.of(("y",))
    assert after.of(("y",)) == TrueLabel("c", "y")


def test_a_task_that_a_version_lacks_is_none_of_its_classes() -> None:
    without = Naming(LEARNED[1:], LEARNED[1:])
    before, after = TrueLabels.of_versions({2: without, 3: SHOWN})
    assert before.of(("c", "y")) is None
    assert after.of(("c", "y")) == TrueLabel("c", "y")
