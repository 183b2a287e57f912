"""Tests of names that are laid over those that tasks and classes were learned under."""

from __future__ import annotations

from typing import Any

import pytest

from vault import approval
from vault.classes.class_index import ClassIndexes
from vault.classes.names import ambiguity, find, is_shown_elsewhere, named_tasks, overlay
from vault.commit_log import Commit
from vault.errors import Damaged, UnsupportedRecord
from vault.maintenance.validator import check_order
from vault.models import Model
from vault.storage import documents
from vault.vault import Vault

TASKS = ({"name": "a", "classes": ["x", "y"], "job": "1"}, {"name": "b", "classes": ["x"]})
NAMES: dict[str, Any] = {"a": {"name": "c", "labels": {"x": "y", "y": "x"}}}


def commit(names: dict[str, Any] | None) -> Commit:
    model = Model("m", {}, 1, "0" * 32, "2026-11-29T12:00:00.000000Z")
    return Commit.first(model, recogniser="0" * 64).following("learn", tasks=TASKS, names=names)


def test_names_are_laid_over_those_that_were_learned() -> None:
    tasks = named_tasks(commit(NAMES))
    assert [(one.name, one.classes) for one in tasks] == [("c", ("y", "x")), ("b", ("x",))]
    assert [one.renamed for one in tasks] == [True, False]
    assert overlay(tasks) == NAMES
    assert tasks[0].to_dict()["learned_as"] == {"name": "a", "classes": ["x", "y"]}
    assert tasks[1].to_dict() == {"name": "b", "classes": ["x"]}
    assert find(tasks, "a") is find(tasks, "c") is tasks[0]
    assert find(tasks, "d") is None
    assert [tasks[0].label(one) for one in ("x", "y", "z")] == ["x", "y", None], "what is shown counts"
    back = tasks[0].called("a", {"y": "x", "x": "y"})
    assert not back.renamed
    assert overlay([back, tasks[1]]) is None
    assert back.changed_from(tasks[0]) == {"from": "c", "to": "a", "labels": {"x": "y", "y": "x"}}


def test_a_name_is_taken_by_what_shows_it_and_by_what_was_learned_under_it() -> None:
    named = commit(NAMES)
    assert [is_shown_elsewhere(named, name) for name in "abcd"] == [False, False, True, False]
    assert not any(is_shown_elsewhere(commit(None), name) for name in "abcd")


@pytest.mark.parametrize(
    "names",
    [
        {"a": {"name": "b"}},
        {"a": {"labels": {"x": "y"}}},
        {"a": {"name": "a"}},
        {"a": {}},
        {},
        {"z": {"name": "q"}},
        {"a": {"labels": {"q": "r"}}},
        {"a": {"name": 1}},
        {"a": {"labels": ["x"]}},
        {"a": {"labels": {"x": 1}}},
        {"a": "c"},
    ],
)
def test_names_that_do_not_tell_tasks_apart_are_damage(names: dict[str, Any]) -> None:
    assert ambiguity(commit(names)) is not None
    with pytest.raises(Damaged, match="record"):
        check_order("record", commit(names))


def test_a_task_never_takes_the_name_that_another_was_learned_under() -> None:
    assert ambiguity(commit({"a": {"name": "c"}, "b": {"name": "a"}})) is not None
    assert ambiguity(commit(NAMES)) is None
    check_order("record", commit(NAMES))


def test_only_commits_with_names_have_the_format_that_earlier_releases_refuse(
    vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = vault.models.create("m", {})
    first = Commit.first(model, recogniser="0" * 64, tasks=TASKS)
    assert "names" not in first.to_dict()
    assert "renamed" not in first.to_dict()
    named = approval.learned(first, "rename", names=NAMES, renamed={"from": "a", "to": "c", "labels": {}})
    after = named.following("budget", budget={"layer": 1})
    back = after.following("rename", names=None, renamed={"from": "c", "to": "a", "labels": {}})
    for one in (first, named, after, back):
        vault.log.append("m", one)
        assert vault.log.read("m", one.version) == one
    assert (after.names, after.renamed, back.names) == (NAMES, None, None)
    assert [one.format for one in (first, named, after, back)] == [1, 5, 5, 1]
    monkeypatch.setattr(documents, "FORMAT", 4)
    for version in (1, 2):
        with pytest.raises(UnsupportedRecord, match="format 5"):
            vault.log.read("m", version)
    assert vault.log.read("m", 3) == back


def test_a_class_keeps_its_number_by_whatever_name(vault: Vault) -> None:
    model = vault.models.create("m", {})
    commit = Commit.first(model, recogniser="0" * 64, tasks=TASKS)
    vault.log.append("m", commit)
    vault.log.append("m", commit := commit.following("rename", names=NAMES))
    gone = commit.following("activate", tasks=TASKS[1:], names=None)
    vault.log.append("m", gone)
    indexes = ClassIndexes(vault.log)
    assert indexes.of("m", 0).classes == (("a", "x"), ("a", "y"), ("b", "x"))
    shown = indexes.of("m", 1)
    assert shown.classes == (("c", "y"), ("c", "x"), ("b", "x"))
    assert shown.of_task("a") == shown.of_task("c") == (0, 1)
    assert shown.dense
    assert (indexes.of("m", 2).classes, indexes.of("m", 2).served) == (indexes.of("m", 0).classes, (2,))


def test_a_rename_waits_where_versions_are_published_by_hand() -> None:
    on = commit(None).following("publish", publish="manual")
    renamed = approval.learned(on, "rename", names=NAMES)
    assert (renamed.active, renamed.candidates, renamed.format) == (on.version, (renamed.version,), 5)
    assert approval.activated(renamed, renamed.version, names=NAMES).names == NAMES
