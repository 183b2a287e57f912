"""Tests of the local folder: flushing, concurrent removal, foreign files."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from vault.errors import AlreadyExists, StoreUnavailable
from vault.settings import VaultSettings
from vault.storage import local
from vault.storage.object_store import ObjectStore

USE = """
import os, sys, time
from testing.processes.races import race
from vault.storage.object_store import ObjectStore
from vault.settings import VaultSettings

objects = ObjectStore.connect(VaultSettings(store_url=sys.argv[1]))
objects.put("a/0", b"")

def use(thread):
    for number in range(30):
        objects.put(f"a/{thread}-{number}", b"x")
        objects.get("a/0")
        objects.list("a")

def threads():
    return len(os.listdir("/proc/self/task"))

before = threads()
race(16, use)
end = time.monotonic() + 60
while threads() > before and time.monotonic() < end:  # one that was joined may still be on its way out
    time.sleep(0.01)
print(before, threads())
"""
"""Program that prints its number of threads before and after."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def objects(root: Path) -> ObjectStore:
    return ObjectStore.connect(VaultSettings(store_url=str(root)))


def test_an_object_is_on_disk_before_it_has_its_name(
    objects: ObjectStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[Path] = []
    flush = local._flush

    def watch(path: str) -> None:
        if os.path.isfile(path):
            assert not (root / "jobs/1/request.json").exists()
        flushed.append(Path(path).relative_to(root))
        flush(path)

    monkeypatch.setattr(local, "_flush", watch)
    objects.put_new("jobs/1/request.json", b"{}")
    assert flushed[0].parts[0] == "staging"
    assert set(map(str, flushed[1:])) == {"jobs/1", "jobs", "."}


def test_no_more_folders_are_remembered_than_a_few(
    objects: ObjectStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "_FLUSHED_FOLDERS", 4)
    flushed: list[str] = []
    monkeypatch.setattr(local, "_flush", flushed.append)
    for job in range(10):
        objects.put(f"jobs/{job}/request.json", b"{}")

    def again(job: int) -> bool:
        """Whether the parent of the job's folder is flushed once more."""
        flushed.clear()
        objects.put(f"jobs/{job}/result.json", b"{}")
        return str(root / "jobs") in flushed

    assert not again(9)
    assert again(0)
    assert not again(0)


def test_a_folder_made_anew_is_flushed_anew_though_its_inode_is_the_same(
    objects: ObjectStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stat = os.stat

    def reused(path: Path, **options: bool) -> os.stat_result:
        mode, _, *rest = stat(path, **options)
        return os.stat_result((mode, 1, *rest))

    monkeypatch.setattr(os, "stat", reused)
    objects.put("a/b/c", b"")
    objects.delete("a/b/c")
    objects.remove_folder("a/b")
    flushed: list[str] = []
    monkeypatch.setattr(local, "_flush", flushed.append)
    objects.put("a/b/c", b"")
    assert flushed[1:] == [str(root / "a/b"), str(root / "a")]


def test_failed_writes_leave_nothing_behind(objects: ObjectStore, root: Path) -> None:
    objects.put_new("a", b"")
    for _ in range(3):
        with pytest.raises(AlreadyExists):
            objects.put_new("a", b"")
    assert list((root / "staging").iterdir()) == []


def test_reading_and_writing_begin_no_threads(root: Path) -> None:
    done = subprocess.run([sys.executable, "-c", USE, str(root)], capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert after == before


def test_a_file_where_a_folder_should_be_is_a_failure(objects: ObjectStore, root: Path) -> None:
    objects.put("a/b", b"one")
    (root / "a").rename(root / "away")
    (root / "a").touch()
    for call in (objects.get, objects.exists, objects.size, objects.delete):
        with pytest.raises(StoreUnavailable, match="a/b"):
            call("a/b")


def test_what_somebody_else_left_there_is_no_object(objects: ObjectStore, root: Path) -> None:
    objects.put("a/b", b"")
    for stray in (".hidden", "a b", os.fsdecode(b"\xff")):
        (root / "a" / stray).touch()
        (root / stray).mkdir()
    assert objects.list("a") == ["a/b"]
    assert objects.sizes("a") == {"a/b": 0}
    assert objects.list_top() == ["a", "staging"]


def test_a_failure_does_not_tell_where_the_store_lies(
    objects: ObjectStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "a").touch()
    with pytest.raises(StoreUnavailable) as caught:
        objects.put("a/b", b"")
    assert str(root) not in str(caught.value)


def test_a_folder_that_is_removed_again_and_again(
    objects: ObjectStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def lose(source: str, target: str) -> None:
        shutil.rmtree(Path(target).parent, ignore_errors=True)
        link(source, target)

    monkeypatch.setattr(os, "link", lose)
    with pytest.raises(StoreUnavailable, match="a/b"):
        objects.put_new("a/b", b"")
    monkeypatch.undo()
    objects.put_new("a/b", b"")
    assert list((root / "staging").iterdir()) == []


@pytest.mark.parametrize("error", [FileNotFoundError, FileExistsError])
def test_a_folder_that_is_removed_while_it_is_made(
    objects: ObjectStore, monkeypatch: pytest.MonkeyPatch, error: type[OSError]
) -> None:
    mkdir, left = os.mkdir, iter(range(3))

    def lose(path: Path, mode: int = 0o777) -> None:
        """Fail as if another process had made the folder, or removed its parent, just before."""
        if Path(path).name == "b" and next(left, None) is not None:
            raise error(path)
        mkdir(path, mode)

    monkeypatch.setattr(os, "mkdir", lose)
    objects.put_new("a/b/c", b"one")
    assert objects.get("a/b/c") == b"one"


def test_left_overs_of_killed_writers_are_removed(objects: ObjectStore, root: Path) -> None:
    objects.put("a", b"")
    old, young = root / "staging/old", root / "staging/young"
    old.touch()
    young.touch()
    os.utime(old, (0, 0))
    ObjectStore.connect(VaultSettings(store_url=str(root)))
    assert [path.name for path in (root / "staging").iterdir()] == ["young"]


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreUnavailable):
        ObjectStore.connect(VaultSettings(store_url=str(tmp_path / "file" / "store")))


def test_folders_can_be_named_in_three_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for url in ("a store", f"{tmp_path}/a store", f"file://{tmp_path}/a%20store"):
        assert VaultSettings(store_url=url).store_folder == tmp_path / "a store"
