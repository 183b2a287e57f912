"""Tests of the figures of an evaluation, beside plain references."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from engram.errors import AmbiguousLabel
from engram.recognition.predictions import Candidate, Prediction
from engram.training.evaluation.differences import Differences
from engram.training.evaluation.true_labels import TrueLabel, TrueLabels
from engram.training.evaluation.version_figures import VersionFigures

CLASSES = {"pets": ("cat", "dog"), "farm": ("cow", "dog"), "sky": ("owl",)}
LABELS = TrueLabels(3, CLASSES, frozenset({"sea"}))


def answered(
    task: str, label: str, probability: float = 0.5, known: bool | None = True, tasks: tuple[str, ...] = ()
) -> Prediction:
    top = (Candidate(task, label, probability, tasks=tasks),)
    return Prediction(task, probability, label, probability, top, known, 0.0)


@pytest.mark.parametrize(
    ("folder", "task", "expected"),
    [
        (("cat",), None, TrueLabel("pets", "cat")),
        (("any", "where", "cat"), None, TrueLabel("pets", "cat")),
        (("pets", "dog"), None, TrueLabel("pets", "dog")),
        (("top", "farm", "dog"), None, TrueLabel("farm", "dog")),
        (("dog",), "farm", TrueLabel("farm", "dog")),
        (("pets", "dog"), "farm", TrueLabel("farm", "dog")),
        (("farm", "cat"), None, None),
        (("sea", "cat"), None, None),
        (("cat",), "farm", None),
        (("cat",), "sea", None),
        (("whale",), None, None),
    ],
)
def test_a_folder_says_what_its_images_are(folder: tuple[str, ...], task: str | None, expected: object) -> None:
    assert LABELS.of(folder, task) == expected


def test_a_label_of_several_tasks_has_to_be_told_apart() -> None:
    with pytest.raises(AmbiguousLabel, match=r"2 tasks of version 3 have the label 'dog' \('pets', 'farm'\)"):
        LABELS.of(("dog",))
    assert [LABELS.shown("pets", "dog"), LABELS.shown("sky", "owl")] == ["pets/dog", "owl"]


def test_figures_are_those_of_plain_loops() -> None:
    drawn = random.Random(7)
    known = [TrueLabel(task, label) for task, labels in CLASSES.items() for label in labels]
    rows = []
    figures = VersionFigures(LABELS)
    for _ in range(500):
        truth, given, aided = (drawn.choice(known) for _ in range(3))
        given = truth if drawn.random() < 0.6 else given
        answer = answered(*given, probability=drawn.random(), known=drawn.choice([True, False, None]))
        figures.add(truth, answer, answered(truth.task, aided.label))
        rows.append((truth, answer, aided))
    for number in range(30):
        figures.add_stranger(("x", f"s{number % 3}"), answered("sky", "owl", known=number % 5 > 1))
    found: Any = figures.to_dict()

    right = [truth == (answer.task, answer.label) for truth, answer, _ in rows]
    assert found["images"] == 500
    assert found["accuracy"] == sum(right) / 500
    assert found["accuracy_with_task"] == sum(truth.label == aided.label for truth, _, aided in rows) / 500
    assert found["unknown"] == sum(answer.known is False for _, answer, _ in rows)
    assert found["untold"] == sum(answer.known is None for _, answer, _ in rows)
    bins: list[list[tuple[float, bool]]] = [[] for _ in range(15)]
    for (_, answer, _), hit in zip(rows, right, strict=True):
        bins[min(14, int(torch.tensor(answer.probability).double() * 15))].append((answer.probability, hit))
    gaps = [abs(sum(p for p, _ in one) - sum(hit for _, hit in one)) for one in bins]
    assert found["calibration_error"] == pytest.approx(sum(gaps) / 500, abs=1e-6)
    for truth in known:
        mine = [
            (hit, aided.label == truth.label) for (one, _, aided), hit in zip(rows, right, strict=True) if one == truth
        ]
        counted = found["tasks"][truth.task]["classes"][truth.label]
        assert counted["images"] == len(mine)
        assert counted["recall"] == sum(hit for hit, _ in mine) / len(mine)
        assert counted["recall_with_task"] == sum(hit for _, hit in mine) / len(mine)
        assert counted["interval"][0] < counted["recall"] < counted["interval"][1]
        for other in known:
            cell = found["confusion"][LABELS.shown(*truth)].get(LABELS.shown(*other), 0)
            assert cell == sum(one == truth and (a.task, a.label) == other for one, a, _ in rows)
    for task in CLASSES:
        given_to = [answer.task for truth, answer, _ in rows if truth.task == task]
        assert found["routing"][task] == {one: given_to.count(one) for one in set(given_to)}
        assert found["tasks"][task]["recognised"] == given_to.count(task) / len(given_to)
    strangers = found["strangers"]
    assert (strangers["images"], strangers["unknown"], strangers["unlisted"]) == (30, 12, 0)
    assert {label: one["images"] for label, one in strangers["labels"].items()} == {"s0": 10, "s1": 10, "s2": 10}


def test_a_label_that_is_joined_is_right_of_whichever_task_has_it() -> None:
    figures = VersionFigures(LABELS)
    truth = TrueLabel("pets", "dog")
    figures.add(truth, answered("farm", "dog", tasks=("farm", "pets")), answered("pets", "dog"))
    figures.add(truth, answered("farm", "dog"), answered("pets", "dog"))
    found: Any = figures.to_dict()
    assert (found["accuracy"], found["accuracy_with_task"]) == (0.5, 1.0)
    assert found["confusion"] == {"pets/dog": {"pets/dog": 1, "farm/dog": 1}}
    assert found["routing"] == {"pets": {"farm": 2}}


def test_no_image_has_no_figures() -> None:
    found: Any = VersionFigures(LABELS).to_dict()
    assert (found["images"], found["accuracy"], found["calibration_error"]) == (0, None, None)
    assert (found["tasks"], found["confusion"]) == ({}, {})


def test_what_differs_is_counted_and_the_gravest_is_listed() -> None:
    differences = Differences((2, 3), most=3)
    logits, others = torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.0000002])
    cat = answered("pets", "cat")
    for number in range(4):
        differences.add(f"same/{number}", (cat, answered("pets", "cat", 0.4)), (logits, logits.clone()))
        differences.add(f"bytes/{number}", (cat, cat), (logits, others))
    differences.add("known", (cat, answered("pets", "cat", known=False)), (logits, logits))
    differences.add("label/b", (cat, answered("sky", "owl", 0.9)), (None, None))
    differences.add("label/a", (cat, answered("pets", "dog")), (logits, others))
    found: Any = differences.to_dict()
    assert (found["differences"], found["cut"]) == (7, True)
    assert found["by"] == {"label": 2, "task": 1, "known": 1, "logits": 5}
    assert [(one["image"], one["differs"]) for one in found["listed"]] == [
        ("label/a", ["label", "logits"]),
        ("label/b", ["label", "task"]),
        ("known", ["known"]),
    ]
    assert found["listed"][1]["answers"] == [
        {"version": 2, "task": "pets", "label": "cat", "probability": 0.5, "known": True},
        {"version": 3, "task": "sky", "label": "owl", "probability": 0.9, "known": True},
    ]
