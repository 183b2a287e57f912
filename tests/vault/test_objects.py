"""One list of laws for the object storage, which every kind of it keeps."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import obstore
import pytest

import vault.folder
from tests.vault.races import race
from vault.errors import AlreadyExists, Damaged, InvalidPath, NotFound, StoreUnavailable
from vault.objects import Objects
from vault.settings import VaultSettings

USE = """
import os, sys, time
from tests.vault.races import race
from vault.objects import Objects
from vault.settings import VaultSettings

objects = Objects.connect(VaultSettings(store_url=sys.argv[1]))
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
end = time.monotonic() + 10
while threads() > before and time.monotonic() < end:  # one that was joined may still be on its way out
    time.sleep(0.01)
print(before, threads())
"""
"""Tells how many threads the process has before and after."""


class ObjectsContract:
    """The laws; a subclass gives `objects`, empty."""

    @pytest.fixture
    def objects(self) -> Objects:
        raise NotImplementedError

    def test_what_is_put_is_got(self, objects: Objects) -> None:
        objects.put("a/b.json", b"one")
        assert objects.get("a/b.json") == b"one"
        objects.put("a/b.json", b"two")
        assert objects.get("a/b.json") == b"two"
        assert objects.exists("a/b.json")

    def test_put_new_refuses_what_is_there(self, objects: Objects) -> None:
        objects.put_new("a/b", b"one")
        with pytest.raises(AlreadyExists, match="a/b"):
            objects.put_new("a/b", b"one")
        with pytest.raises(AlreadyExists):
            objects.put_new("a/b", b"two")
        assert objects.get("a/b") == b"one"

    def test_of_racing_creators_one_wins(self, objects: Objects) -> None:
        for number in range(10):
            path = f"races/{number}"

            def create(thread: int, path: str = path) -> int | None:
                try:
                    objects.put_new(path, str(thread).encode() * 1000)
                except AlreadyExists:
                    return None
                return thread

            winners = [thread for thread in race(8, create) if thread is not None]
            assert len(winners) == 1
            assert objects.get(path) == str(winners[0]).encode() * 1000

    def test_of_racing_creators_of_the_same_document_one_wins(self, objects: Objects) -> None:
        def create(_: int) -> bool:
            try:
                objects.create_json("races/same", {"a": 1})
            except AlreadyExists:
                return False
            return True

        assert sum(race(8, create)) == 1

    def test_a_writer_whose_answer_got_lost_knows_its_own(
        self, objects: Objects, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        put_new = objects.put_new

        def put_twice(path: str, data: bytes) -> None:
            put_new(path, data)
            put_new(path, data)

        monkeypatch.setattr(objects, "put_new", put_twice)
        objects.create_json("a/b.json", {"a": 1})
        assert objects.get_json("a/b.json")["a"] == 1
        with pytest.raises(AlreadyExists):
            objects.create_json("a/b.json", {"a": 1})

    def test_json_without_finite_numbers_becomes_null(self, objects: Objects) -> None:
        objects.create_json("a.json", {"a": float("nan"), "b": [float("inf"), 1.5]})
        document = objects.get_json("a.json")
        assert (document["a"], document["b"]) == (None, [None, 1.5])

    @pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff"])
    def test_damaged_json_is_named(self, objects: Objects, data: bytes) -> None:
        objects.put("a/b.json", data)
        with pytest.raises(Damaged, match=r"a/b\.json"):
            objects.get_json("a/b.json")

    def test_what_is_not_there(self, objects: Objects) -> None:
        assert not objects.exists("a/b")
        assert objects.written_at("a/b") is None
        with pytest.raises(NotFound, match="a/b"):
            objects.get("a/b")
        objects.delete("a/b")
        objects.put("a/b/c", b"")
        with pytest.raises(NotFound):
            objects.get("a/b")
        assert not objects.exists("a/b")

    def test_a_folder_is_no_object(self, objects: Objects) -> None:
        objects.put("a/b", b"one")
        assert not objects.exists("a")
        with pytest.raises(NotFound, match="a"):
            objects.get("a")
        with pytest.raises(NotFound):
            objects.size("a")

    def test_what_is_told_of_objects(self, objects: Objects) -> None:
        before = datetime.now(UTC) - timedelta(seconds=2)
        objects.put("a/b", b"one")
        objects.put("a/c/d", b"")
        objects.put("b/e", b"x")
        assert (objects.size("a/b"), objects.size("a/c/d")) == (3, 0)
        assert objects.sizes("a") == {"a/b": 3, "a/c/d": 0}
        assert objects.written("a").keys() == {"a/b", "a/c/d"}
        for written in (*objects.written("a").values(), objects.written_at("a/b")):
            assert written is not None
            assert before < written < before + timedelta(seconds=60)
        assert {"a", "b"} <= set(objects.list_top()) <= {"a", "b", "staging"}

    def test_delete(self, objects: Objects) -> None:
        objects.put("a/b", b"one")
        objects.delete("a/b")
        assert not objects.exists("a/b")
        objects.put_new("a/b", b"two")
        assert objects.get("a/b") == b"two"

    @pytest.mark.parametrize(
        "path", ["", "/a", "a/", "a//b", "../a", "a/../b", "a/./b", ".a", "a b", "a\\b", "a/ä", "%2e"]
    )
    def test_path_tricks_are_refused(self, objects: Objects, path: str) -> None:
        for call in (objects.get, objects.exists, objects.delete, objects.list, objects.list_folders):
            with pytest.raises(InvalidPath):
                call(path)
        for write in (objects.put, objects.put_new):
            with pytest.raises(InvalidPath):
                write(path, b"")

    def test_list_is_sorted_and_paged(self, objects: Objects) -> None:
        names = [f"a/b/{number:02d}" for number in (7, 3, 9, 0, 5, 1)]
        for name in [*names, "a/bb/00", "a/b/10/deep", "c"]:
            objects.put(name, b"x")
        everything = sorted([*names, "a/b/10/deep"])
        assert objects.list("a/b") == everything
        assert objects.list("a/b", limit=2) == everything[:2]
        assert objects.list("a/b", after=everything[1], limit=3) == everything[2:5]
        assert objects.list("a/b", after=everything[-1]) == []
        assert objects.list("nothing") == []

    def test_list_folders_is_sorted_and_paged(self, objects: Objects) -> None:
        for name in ("z", "b", "a", "m"):
            objects.put(f"models/{name}/model.json", b"x")
            objects.put(f"models/{name}/log/0", b"x")
        objects.put("models/file", b"x")
        assert objects.list_folders("models") == ["a", "b", "m", "z"]
        assert objects.list_folders("models", after="a", limit=2) == ["b", "m"]
        assert objects.list_folders("nothing") == []

    def test_blobs_are_named_by_their_hash(self, objects: Objects) -> None:
        data = os.urandom(100_000)
        sha = objects.put_blob(data)
        assert sha == hashlib.sha256(data).hexdigest()
        assert objects.put_blob(data) == sha
        assert objects.get_blob(sha) == data
        assert objects.list("blobs") == [f"blobs/{sha}"]
        assert race(6, lambda _: objects.put_blob(b"same")) == [objects.put_blob(b"same")] * 6

    def test_a_damaged_blob_is_noticed_and_named(self, objects: Objects) -> None:
        sha = objects.put_blob(b"the right bytes")
        objects.put(f"blobs/{sha}", b"the wrong bytes")
        with pytest.raises(Damaged, match=f"blobs/{sha}") as caught:
            objects.get_blob(sha)
        assert caught.value.path == f"blobs/{sha}"
        objects.put_blob(b"the right bytes")
        assert objects.get_blob(sha) == b"the right bytes"

    def test_unknown_blobs(self, objects: Objects) -> None:
        for name in ("0" * 64, "short", "../" * 20, "0" * 63 + "/"):
            with pytest.raises(NotFound):
                objects.get_blob(name)

    def test_files_are_streamed_and_checked(self, objects: Objects, tmp_path: Path) -> None:
        source, target = tmp_path / "source", tmp_path / "target"
        source.write_bytes(os.urandom(9_000_001))
        name = objects.put_file(source)
        objects.get_file(name, target)
        assert target.read_bytes() == source.read_bytes()
        assert objects.list("data") == [f"data/{name}"]

    def test_uploads_of_the_same_bytes_are_deleted_apart(self, objects: Objects, tmp_path: Path) -> None:
        source = tmp_path / "source"
        source.write_bytes(b"data")
        first, second = objects.put_file(source), objects.put_file(source)
        objects.delete(f"data/{first}")
        objects.get_file(second, tmp_path / "target")
        assert (tmp_path / "target").read_bytes() == b"data"

    def test_a_damaged_file_is_noticed_and_leaves_nothing(self, objects: Objects, tmp_path: Path) -> None:
        source, folder = tmp_path / "source", tmp_path / "folder"
        source.write_bytes(b"x" * 100_000)
        folder.mkdir()
        name = objects.put_file(source)
        objects.put(f"data/{name}", b"y" * 100_000)
        with pytest.raises(Damaged, match=name):
            objects.get_file(name, folder / "target")
        with pytest.raises(NotFound):
            objects.get_file("0" * 64 + "-0", folder / "target")
        with pytest.raises(NotFound):
            objects.get_file("../../etc/passwd", folder / "target")
        assert list(folder.iterdir()) == []

    def test_ping(self, objects: Objects) -> None:
        objects.ping()


class TestFolder(ObjectsContract):
    """A local folder."""

    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        return tmp_path / "store"

    @pytest.fixture
    def objects(self, root: Path) -> Objects:
        return Objects.connect(VaultSettings(store_url=str(root)))

    def test_an_object_is_on_disk_before_it_has_its_name(
        self, objects: Objects, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        flushed: list[Path] = []
        flush = vault.folder._flush

        def watch(path: Path) -> None:
            if path.is_file():
                assert not (root / "jobs/1/request.json").exists()
            flushed.append(path.relative_to(root))
            flush(path)

        monkeypatch.setattr(vault.folder, "_flush", watch)
        objects.put_new("jobs/1/request.json", b"{}")
        assert flushed[0].parts[0] == "staging"
        assert set(map(str, flushed[1:])) == {"jobs/1", "jobs", "."}

    def test_no_more_folders_are_remembered_than_a_few(
        self, objects: Objects, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(vault.folder, "_REMEMBERED", 4)
        flushed: list[Path] = []
        monkeypatch.setattr(vault.folder, "_flush", flushed.append)
        for job in range(10):
            objects.put(f"jobs/{job}/request.json", b"{}")

        def again(job: int) -> bool:
            """Whether the folder that names a job's is flushed once more."""
            flushed.clear()
            objects.put(f"jobs/{job}/result.json", b"{}")
            return root / "jobs" in flushed

        assert not again(9)
        assert again(0)
        assert not again(0)

    def test_failed_writes_leave_nothing_behind(self, objects: Objects, root: Path) -> None:
        objects.put_new("a", b"")
        for _ in range(3):
            with pytest.raises(AlreadyExists):
                objects.put_new("a", b"")
        assert list((root / "staging").iterdir()) == []

    def test_reading_and_writing_begin_no_threads(self, root: Path) -> None:
        done = subprocess.run([sys.executable, "-c", USE, str(root)], capture_output=True, text=True, check=True)
        before, after = map(int, done.stdout.split())
        assert after == before

    def test_a_file_where_a_folder_should_be_is_a_failure(self, objects: Objects, root: Path) -> None:
        objects.put("a/b", b"one")
        (root / "a").rename(root / "away")
        (root / "a").touch()
        for call in (objects.get, objects.exists, objects.size, objects.delete):
            with pytest.raises(StoreUnavailable, match="a/b"):
                call("a/b")

    def test_what_somebody_else_left_there_is_no_object(self, objects: Objects, root: Path) -> None:
        objects.put("a/b", b"")
        for stray in (".hidden", "a b", os.fsdecode(b"\xff")):
            (root / "a" / stray).touch()
            (root / stray).mkdir()
        assert objects.list("a") == ["a/b"]
        assert objects.sizes("a") == {"a/b": 0}
        assert objects.list_top() == ["a", "staging"]

    def test_a_failure_does_not_tell_where_the_store_lies(
        self, objects: Objects, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (root / "a").touch()
        with pytest.raises(StoreUnavailable) as caught:
            objects.put("a/b", b"")
        assert str(root) not in str(caught.value)

    def test_a_folder_that_is_removed_again_and_again(
        self, objects: Objects, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        link = os.link

        def lose(source: Path, target: Path) -> None:
            shutil.rmtree(target.parent, ignore_errors=True)
            link(source, target)

        monkeypatch.setattr(os, "link", lose)
        with pytest.raises(StoreUnavailable, match="a/b"):
            objects.put_new("a/b", b"")
        monkeypatch.undo()
        objects.put_new("a/b", b"")
        assert list((root / "staging").iterdir()) == []

    def test_left_overs_of_killed_writers_are_removed(self, objects: Objects, root: Path) -> None:
        objects.put("a", b"")
        old, young = root / "staging/old", root / "staging/young"
        old.touch()
        young.touch()
        os.utime(old, (0, 0))
        Objects.connect(VaultSettings(store_url=str(root)))
        assert [path.name for path in (root / "staging").iterdir()] == ["young"]

    def test_a_folder_that_cannot_be_made(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(StoreUnavailable):
            Objects.connect(VaultSettings(store_url=str(tmp_path / "file" / "store")))

    def test_folders_can_be_named_in_three_ways(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        for url in ("a store", f"{tmp_path}/a store", f"file://{tmp_path}/a%20store"):
            assert VaultSettings(store_url=url).store_folder == tmp_path / "a store"


class TestS3(ObjectsContract):
    """A bucket behind the S3 protocol."""

    @pytest.fixture
    def objects(self, s3_settings: VaultSettings) -> Objects:
        return Objects.connect(s3_settings)

    def test_a_listing_fetches_no_more_than_asked(self, objects: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
        for number in range(10):
            objects.put(f"a/{number}", b"")
        sizes: list[int] = []
        inner = obstore.list

        def watch(*args: object, chunk_size: int, **options: object) -> object:
            sizes.append(chunk_size)
            return inner(*args, chunk_size=chunk_size, **options)  # type: ignore[call-overload] # handed on as it came

        monkeypatch.setattr(obstore, "list", watch)
        assert objects.list("a", limit=3) == ["a/0", "a/1", "a/2"]
        assert sizes == [3]

    def test_a_bucket_that_is_not_there(self, s3_settings: VaultSettings) -> None:
        objects = Objects.connect(s3_settings.model_copy(update={"store_url": "s3://no-such-bucket"}))
        with pytest.raises(StoreUnavailable):
            objects.ping()
