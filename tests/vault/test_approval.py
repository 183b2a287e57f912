"""Tests of what answers, waits and is learned on, over random histories."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.vault.test_commit_log import publish
from vault import approval
from vault.commit_log import Commit
from vault.errors import CandidatesWaiting, Damaged, NotACandidate, UnsupportedRecord
from vault.settings import VaultSettings
from vault.storage import documents
from vault.vault import Vault

MODEL = "lines"


def head(vault: Vault) -> Commit:
    found = vault.log.head(MODEL)
    assert found is not None
    return found


def learn(vault: Vault, name: str) -> Commit:
    on = approval.learned_on(vault.log, MODEL)
    assert on is not None
    made = approval.learned(on, engrams=(*on.engrams, name), task=name, tasks=(*on.tasks, {"name": name}))
    vault.log.append(MODEL, made)
    return made


def activate(vault: Vault, version: int) -> Commit:
    target = vault.log.read(MODEL, version)
    made = approval.activated(head(vault), version, engrams=target.engrams, tasks=target.tasks)
    vault.log.append(MODEL, made)
    return made


def reject(vault: Vault, version: int) -> Commit:
    made = approval.rejected(vault.log, MODEL, head(vault), version)
    vault.log.append(MODEL, made)
    return made


def answered(vault: Vault) -> list[str]:
    """Names of the tasks that answer."""
    return [task["name"] for task in approval.answering(vault.log, MODEL, head(vault)).tasks]


@pytest.fixture
def manual(vault: Vault) -> Vault:
    """A vault whose model waits with what it learns; two tasks answer."""
    publish(vault, MODEL, 2)
    vault.log.append(MODEL, approval.changed(head(vault), "publish", publish="manual"))
    return vault


def test_the_next_task_is_learned_on_the_newest_candidate(manual: Vault) -> None:
    first, second = learn(manual, "a"), learn(manual, "b")
    assert (first.active, second.active) == (3, 3)
    assert head(manual).candidates == (first.version, second.version)
    assert second.engrams == (*first.engrams, "b")
    assert answered(manual) == ["t1", "t2"]
    activated = activate(manual, second.version)
    assert (activated.active, activated.candidates) == (None, ())
    assert answered(manual) == ["t1", "t2", "a", "b"]


def test_an_earlier_candidate_leaves_the_later_waiting(manual: Vault) -> None:
    first, second = learn(manual, "a"), learn(manual, "b")
    assert activate(manual, first.version).candidates == (second.version,)
    assert answered(manual) == ["t1", "t2", "a"]
    third = learn(manual, "c")
    assert [task["name"] for task in third.tasks] == ["t1", "t2", "a", "b", "c"]
    assert answered(manual) == ["t1", "t2", "a"]
    assert head(manual).candidates == (second.version, third.version)


def test_a_rejected_candidate_takes_the_later_with_it(manual: Vault) -> None:
    first, second, third = learn(manual, "a"), learn(manual, "b"), learn(manual, "c")
    before = approval.active_number(head(manual))
    assert reject(manual, second.version).candidates == (first.version,)
    assert approval.active_number(head(manual)) == before
    with pytest.raises(NotACandidate):
        reject(manual, third.version)
    assert [task["name"] for task in learn(manual, "d").tasks] == ["t1", "t2", "a", "d"]
    assert activate(manual, third.version).candidates == head(manual).candidates, "it waits no more, but can be had"
    assert answered(manual) == ["t1", "t2", "a", "b", "c"]


def test_what_answers_can_be_changed_again_when_none_waits(manual: Vault) -> None:
    made = learn(manual, "a")
    with pytest.raises(CandidatesWaiting, match=str(made.version)):
        approval.changed(head(manual), "budget", budget={"layer": 16})
    reject(manual, made.version)
    widened = approval.changed(head(manual), "budget", budget={"layer": 16})
    manual.log.append(MODEL, widened)
    assert (widened.active, answered(manual)) == (None, ["t1", "t2"])
    manual.log.append(MODEL, auto := approval.changed(head(manual), "publish", publish="auto"))
    assert auto.format == 1, "which earlier releases read"
    assert learn(manual, "b").active is None


def test_earlier_releases_refuse_what_waits(manual: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    made = learn(manual, "a")
    activated = activate(manual, made.version)
    monkeypatch.setattr(documents, "FORMAT", 3)
    for version in (3, made.version, activated.version):
        with pytest.raises(UnsupportedRecord, match="format 4"):
            manual.log.read(MODEL, version)
    assert manual.log.read(MODEL, 2).version == 2


def test_a_version_that_answers_and_is_lost_is_no_missing_model(manual: Vault, vault_settings: VaultSettings) -> None:
    learn(manual, "a")
    folder = vault_settings.store_folder
    assert folder is not None
    (lost,) = (folder / "models" / MODEL).rglob("00000003.json")
    lost.unlink()
    with pytest.raises(Damaged, match="missing"):
        approval.answering(manual.log, MODEL, head(manual))


STEPS = st.tuples(st.sampled_from(["learn", "activate", "reject", "back"]), st.integers(0, 20))


@settings(max_examples=15)
@given(st.lists(STEPS, max_size=12))
def test_what_nobody_activated_never_answers(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]
) -> None:
    with Vault.connect(VaultSettings(store_url=str(tmp_path_factory.mktemp("history") / "store"))) as vault:
        publish(vault, MODEL, 1)
        vault.log.append(MODEL, approval.changed(head(vault), "publish", publish="manual"))
        approved: list[str] = ["t1"]
        waiting: dict[int, list[str]] = {}
        for step, number in steps:
            before = approval.active_number(head(vault))
            names = sorted(waiting)
            if step == "learn":
                made = learn(vault, f"n{head(vault).version}")
                line = waiting[names[-1]] if names else approved
                waiting[made.version] = [*line, str(made.task)]
                assert [task["name"] for task in made.tasks] == waiting[made.version]
            elif step == "activate" and names:
                chosen = names[number % len(names)]
                activate(vault, chosen)
                approved = waiting[chosen]
                waiting = {one: tasks for one, tasks in waiting.items() if one > chosen}
            elif step == "reject" and names:
                chosen = names[number % len(names)]
                reject(vault, chosen)
                waiting = {one: tasks for one, tasks in waiting.items() if one < chosen}
            elif step == "back":
                activate(vault, 1)
                approved = ["t1"]
            assert answered(vault) == approved
            assert head(vault).candidates == tuple(sorted(waiting))
            if step in ("learn", "reject"):
                assert approval.active_number(head(vault)) == before
