"""Tests of the commit log."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

import pytest

from testing.processes.races import race
from vault.commit_log import Commit
from vault.errors import Conflict, Damaged, NotFound, UnknownModel, UnknownVersion
from vault.models import Model
from vault.settings import VaultSettings
from vault.vault import Vault


def publish(vault: Vault, model: str, count: int) -> list[Commit]:
    """A model with versions 0 to `count`."""
    commits = [Commit.first(vault.models.create(model, {}), engrams=("e0",), budget={"layer": 8})]
    vault.log.append(model, commits[0])
    for number in range(1, count + 1):
        engrams = (*commits[-1].engrams, f"e{number}")
        tasks = (*commits[-1].tasks, {"name": f"t{number}", "classes": ["x", "y"]})
        commits.append(commits[-1].following("learn", engrams=engrams, task=f"t{number}", tasks=tasks, token=1))
        vault.log.append(model, commits[-1])
    return commits


class LogContract:
    """Contract tests; a subclass provides the settings of the storage."""

    @pytest.fixture
    def settings(self) -> VaultSettings:
        raise NotImplementedError

    @pytest.fixture
    def vault(self, settings: VaultSettings) -> Iterator[Vault]:
        with Vault.connect(settings) as vault:
            yield vault

    def test_commits_are_read_as_they_were_written(self, vault: Vault) -> None:
        commits = publish(vault, "lines", 3)
        assert [vault.log.read("lines", number) for number in range(4)] == commits
        assert vault.log.head("lines") == commits[-1]

    def test_of_racing_writers_of_a_version_one_wins(self, vault: Vault) -> None:
        head = publish(vault, "lines", 0)[0]
        for version in range(1, 6):

            def append(thread: int, head: Commit = head) -> str | None:
                commit = head.following("learn", task=f"by-{thread}", job=f"job-{thread}")
                try:
                    vault.log.append("lines", commit)
                except Conflict:
                    return None
                return commit.job

            winners = [job for job in race(8, append) if job is not None]
            assert len(winners) == 1
            newer = vault.log.head("lines")
            assert newer is not None
            assert (newer.version, newer.job) == (version, winners[0])
            head = newer

    def test_of_racing_writers_of_the_very_same_commit_one_wins(self, vault: Vault) -> None:
        commit = publish(vault, "lines", 0)[0].following("budget")

        def append(_: int) -> bool:
            try:
                vault.log.append("lines", commit)
            except Conflict:
                return False
            return True

        assert sum(race(8, append)) == 1

    def test_the_head_is_seen_by_other_processes(self, vault: Vault, settings: VaultSettings) -> None:
        commits = publish(vault, "lines", 1)
        with Vault.connect(settings) as other:
            assert other.log.head("lines") == commits[1]
            vault.log.append("lines", commits[1].following("budget"))
            vault.log.append("lines", commits[1].following("budget").following("budget"))
            head = other.log.head("lines")
            assert head is not None
            assert head.version == 3
            vault.models.delete("lines")
            with pytest.raises(UnknownModel):
                other.log.head("lines")
            publish(vault, "lines", 0)
            head = other.log.head("lines")
            assert head is not None
            assert head.version == 0

    def test_a_namesake_made_between_two_looks_is_seen(self, vault: Vault, settings: VaultSettings) -> None:
        publish(vault, "lines", 2)
        with Vault.connect(settings) as other:
            other.log.head("lines")
            vault.models.delete("lines")
            commits = publish(vault, "lines", 1)
            assert other.log.head("lines") == commits[-1]

    def test_listed_both_ways_and_paged(self, vault: Vault) -> None:
        commits = publish(vault, "lines", 5)
        log = vault.log
        assert log.list("lines") == commits
        assert log.list("lines", after=1, limit=2) == commits[2:4]
        assert log.list("lines", newest_first=True, limit=2) == [commits[5], commits[4]]
        assert log.list("lines", after=4, newest_first=True) == commits[3::-1]
        assert log.list("lines", after=5) == log.list("lines", after=0, newest_first=True) == []
        assert log.list("lines", after=-7, limit=1) == commits[:1]

    def test_unknown_things(self, vault: Vault) -> None:
        for call in (vault.log.head, vault.log.list):
            with pytest.raises(UnknownModel):
                call("nobody")
        publish(vault, "lines", 1)
        for version in (2, -1, 10**9):
            with pytest.raises(UnknownVersion):
                vault.log.read("lines", version)

    def test_the_log_has_no_holes(self, vault: Vault) -> None:
        commits = publish(vault, "lines", 1)
        with pytest.raises(UnknownVersion):
            vault.log.append("lines", commits[1].following("budget").following("budget"))
        assert vault.log.head("lines") == commits[1]


class TestFolder(LogContract):
    @pytest.fixture
    def settings(self, vault_settings: VaultSettings) -> VaultSettings:
        return vault_settings


class TestS3(LogContract):
    @pytest.fixture
    def settings(self, s3_settings: VaultSettings) -> VaultSettings:
        return s3_settings


def test_polling_the_head_lists_nothing(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    commits = publish(vault, "lines", 2)
    vault.log.head("lines")
    reads: list[str] = []
    get_json = vault.objects.get_json

    def watch(path: str) -> dict[str, object]:
        reads.append(path.rsplit("/", 1)[1])
        return get_json(path)

    monkeypatch.setattr(vault.objects, "get_json", watch)
    monkeypatch.setattr(vault.objects, "list", None)
    assert vault.log.head("lines") == commits[-1]
    assert reads == ["model.json", "00000003.json"]


def test_a_damaged_commit_is_named(vault: Vault) -> None:
    commits = publish(vault, "lines", 1)
    path = next(path for path in vault.objects.list("models/lines/log") if path.endswith("1.json"))
    for data in (b"", b"{}", b'{"version": 1}', vault.objects.get(path.replace("1.json", "0.json"))):
        vault.objects.put(path, data)
        with pytest.raises(Damaged, match=path):
            vault.log.read("lines", 1)
    assert vault.log.read("lines", 0) == commits[0]


def test_a_commit_that_is_missing_among_others_is_named(vault: Vault) -> None:
    commits = publish(vault, "lines", 2)
    path = f"models/lines/log/{commits[0].lineage}/00000001.json"
    vault.objects.delete(path)
    for call in (lambda: vault.log.read("lines", 1), lambda: vault.log.list("lines")):
        with pytest.raises(NotFound, match=path) as missing:
            call()
        assert (missing.value.path, missing.value.code) == (path, "not_found")
    assert vault.log.list("lines", lenient=True) == [commits[0], commits[2]]
    with Vault.connect(vault.settings) as second:
        assert second.log.head("lines") == commits[2]


def test_a_version_that_comes_while_it_is_looked_for_is_not_missing(
    vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    commits = publish(vault, "lines", 1)
    numbers = vault.log._numbers
    second = commits[-1].following("budget")

    def late(model: str, lineage: str) -> list[int]:
        monkeypatch.undo()
        vault.log.append(model, second)
        vault.log.append(model, second.following("budget"))
        return numbers(model, lineage)

    monkeypatch.setattr(vault.log, "_numbers", late)
    assert vault.log.read("lines", 2) == second


@pytest.mark.parametrize("again", [False, True])
def test_a_model_that_goes_while_its_log_is_read_lost_nothing(
    vault: Vault, monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    commits = publish(vault, "lines", 2)
    find = vault.log._find

    def gone(model: str, lineage: str, version: int) -> Commit | None:
        monkeypatch.undo()
        vault.objects.delete(f"models/lines/log/{commits[0].lineage}/00000001.json")
        vault.objects.delete("models/lines/model.json")
        if again:
            vault.models.create("lines", {})
        return find(model, lineage, version)

    monkeypatch.setattr(vault.log, "_find", gone)
    with pytest.raises(UnknownVersion if again else UnknownModel):
        vault.log.read("lines", 1)


def test_fields_of_later_releases_are_passed_over() -> None:
    commit = Commit.first(Model("a", {}, 1, "lineage", ""))
    assert Commit.from_dict({**commit.to_dict(), "of_tomorrow": 1}) == commit


def test_what_follows_repeats_the_content_and_tells_of_itself_only() -> None:
    first = Commit.first(Model("a", {}, 1, "lineage", ""), engrams=("e",), budget={"l": 1}, recogniser="r")
    second = first.following("learn", task="t", job="j", token=2, report="x")
    third = second.following("activate", target=0)
    assert (third.version, third.parent, third.kind, third.target) == (2, 1, "activate", 0)
    assert (third.engrams, third.budget, third.recogniser, third.lineage) == (("e",), {"l": 1}, "r", "lineage")
    assert (third.task, third.job, third.token, third.report) == (None, None, None, None)


DECODING = {"decoder": 2, "background": "#00ff00"}


def test_a_decoding_is_carried_on_and_seals_records_so_that_earlier_releases_refuse_them(vault: Vault) -> None:
    (first,) = publish(vault, "lines", 0)
    second = first.following("decoder", decoding=DECODING)
    third = second.following("learn", task="t")
    fourth = third.following("activate", target=0, decoding=None)
    for commit in (second, third, fourth):
        vault.log.append("lines", commit)
    assert [commit.decoding for commit in vault.log.list("lines")] == [None, DECODING, DECODING, None]
    folder = f"models/lines/log/{first.lineage}"
    records = [json.loads(vault.objects.get(f"{folder}/{number:08d}.json")) for number in range(4)]
    assert [record["seal"]["format"] for record in records] == [1, 2, 2, 1]
    assert ["decoding" in record for record in records] == [False, True, True, False]


def test_what_is_written_without_a_decoding_is_what_earlier_releases_wrote() -> None:
    assert " ".join(Commit(0, "create", "lineage").to_dict()) == (
        "version kind lineage engrams recogniser kept certificate report task tasks budget parent target job token "
        "request created_at"
    )


def test_a_decoding_that_is_none_is_damage() -> None:
    document = Commit(0, "create", "lineage", decoding=DECODING).to_dict()
    assert Commit.from_dict(document).decoding == DECODING
    with pytest.raises(TypeError, match="decoding"):
        Commit.from_dict({**document, "decoding": 2})


def test_commits_from_before_tasks_had_sums_of_their_own_are_read() -> None:
    document = Commit(0, "create", "lineage", engrams=("e",), kept=("s",)).to_dict()
    del document["kept"]
    assert Commit.from_dict({**document, "sums": "s"}).kept == ("s",)
    assert Commit.from_dict({**document, "sums": None}).kept == ()


def test_a_damaged_head_is_named_and_may_be_overruled_but_never_replaced(vault: Vault) -> None:
    commits = publish(vault, "lines", 3)
    harmed = f"models/lines/log/{commits[0].lineage}/00000003.json"
    vault.objects.put(harmed, b"damaged")
    with Vault.connect(vault.settings) as second:
        for each in (vault, second):
            with pytest.raises(Damaged, match=harmed):
                each.log.head("lines")
            with pytest.raises(Damaged, match=harmed):
                each.log.list("lines")
            assert each.log.list("lines", newest_first=True, limit=2, lenient=True) == [commits[2], commits[1]]
            assert each.log.numbers("lines") == [0, 1, 2, 3]
        with pytest.raises(Conflict):
            second.log.append("lines", commits[2].following("learn", task="other"))
        overruling = replace(commits[2], version=3).following("activate", target=2)
        second.log.append("lines", overruling)
        for each in (vault, second):
            assert each.log.head("lines") == overruling
            assert [commit.version for commit in each.log.list("lines", lenient=True)] == [0, 1, 2, 4]
