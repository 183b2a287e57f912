"""Tests of class indexes: a number never means another class, whatever becomes of a model."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vault.classes.class_index import ClassIndexes
from vault.commit_log import Commit, CommitLog
from vault.errors import UnknownVersion, Unreadable
from vault.models import Model, Models
from vault.storage.object_store import ObjectStore

TASKS = {"a": ["x", "y"], "b": ["x"], "c": ["z", "w", "v"], "d": ["x", "z"]}


def described(names: list[str]) -> tuple[dict[str, Any], ...]:
    return tuple({"name": name, "classes": TASKS[name]} for name in names)


def logged(objects: ObjectStore, histories: list[list[str]], name: str = "m") -> tuple[Model, CommitLog]:
    """A model each of whose versions has the tasks that are named."""
    models = Models(objects)
    model = models.create(name, {})
    log = CommitLog(objects, models)
    commit = Commit.first(model, recogniser="0" * 64)
    log.append(name, commit)
    for tasks in histories:
        commit = commit.following("learn", tasks=described(tasks))
        log.append(name, commit)
    return model, log


@pytest.fixture
def objects(vault: Any) -> ObjectStore:
    store: ObjectStore = vault.objects
    return store


def test_what_is_gone_keeps_its_place(objects: ObjectStore) -> None:
    _, log = logged(objects, [["a"], ["a", "b"], ["a"], ["a", "c"], ["c", "b"]])
    indexes = ClassIndexes(log)
    last = indexes.of("m", 5)
    assert last.classes == (("a", "x"), ("a", "y"), ("b", "x"), ("c", "z"), ("c", "w"), ("c", "v"))
    assert dict(last.numbers) == {"c": (3, 4, 5), "b": (2,)}
    assert last.served == (3, 4, 5, 2)
    fourth = indexes.of("m", 4)
    assert (fourth.served, len(fourth)) == ((0, 1, 3, 4, 5), 6)
    assert len(indexes.of("m", 1)) == 2
    assert indexes.of("m", 0).classes == ()
    assert indexes.answering("m") == [1, 2, 3, 4, 5]


def test_versions_that_come_later_are_read_when_they_are_asked_for(objects: ObjectStore) -> None:
    model, log = logged(objects, [["a"]])
    indexes = ClassIndexes(log)
    assert len(indexes.of("m", 1)) == 2
    assert indexes.known(model.lineage, 1) is indexes.of("m", 1)
    assert indexes.known(model.lineage, 2) is None
    log.append("m", log.read("m", 1).following("learn", tasks=described(["a", "d"])))
    assert indexes.of("m", 2).classes[2:] == (("d", "x"), ("d", "z"))
    with pytest.raises(UnknownVersion):
        indexes.of("m", 3)


def test_a_model_of_the_same_name_is_another(objects: ObjectStore) -> None:
    model, log = logged(objects, [["a"]])
    indexes = ClassIndexes(log)
    assert indexes.of("m", 1).classes[0] == ("a", "x")
    Models(objects).delete("m")
    again, _ = logged(objects, [["c"]])
    assert again.lineage != model.lineage
    assert indexes.of("m", 1).classes[0] == ("c", "z")


def test_a_record_that_cannot_be_read_leaves_no_other_numbers(objects: ObjectStore) -> None:
    """What it named first is not known: a number after that would mean another class than before."""
    model, _ = logged(objects, [["a"], ["a", "b"], ["a"], ["a", "c"]])
    objects.put(f"models/m/log/{model.lineage}/00000002.json", b"{")
    indexes = ClassIndexes(CommitLog(objects, Models(objects)))
    assert len(indexes.of("m", 1)) == 2
    with pytest.raises(Unreadable):
        indexes.of("m", 4)


@settings(max_examples=25)
@given(
    st.lists(st.lists(st.sampled_from(sorted(TASKS)), unique=True, max_size=4), min_size=1, max_size=8),
    st.lists(st.integers(0, 7), max_size=4),
)
def test_numbers_are_for_ever(
    tmp_path_factory: pytest.TempPathFactory, histories: list[list[str]], asked: list[int]
) -> None:
    """The law: the index of each version begins with that of the version before, in whatever order they are asked."""
    from vault.settings import VaultSettings

    folder = tmp_path_factory.mktemp("indexes")
    objects = ObjectStore.connect(VaultSettings(store_url=str(folder), redis_url="redis://none"))
    _, log = logged(objects, histories)
    indexes = ClassIndexes(log)
    for version in (min(one, len(histories)) for one in asked):
        indexes.of("m", version)
    found = [indexes.of("m", version) for version in range(len(histories) + 1)]
    for earlier, later in pairwise(found):
        assert later.classes[: len(earlier)] == earlier.classes
    for index, tasks in zip(found[1:], histories, strict=True):
        assert list(index.numbers) == tasks
        assert {index.classes[one] for one in index.served} == {(t, c) for t in tasks for c in TASKS[t]}
        assert len(set(index.classes)) == len(index)
    fresh = ClassIndexes(CommitLog(objects, Models(objects)))
    assert [fresh.of("m", version) for version in range(len(found))] == found
