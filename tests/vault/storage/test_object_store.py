"""Contract tests of the object store, for a folder and for S3."""

from __future__ import annotations

import hashlib
import os
import random
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import boto3
import obstore
import pytest

from testing.processes.races import race
from vault.errors import AlreadyExists, Damaged, InvalidPath, NotFound, StoreUnavailable
from vault.settings import VaultSettings
from vault.storage import s3
from vault.storage.object_store import CONDEMNED, ObjectStore


class ObjectsContract:
    """Contract tests; a subclass provides an empty `objects`."""

    @pytest.fixture
    def objects(self) -> ObjectStore:
        raise NotImplementedError

    def test_what_is_put_is_got(self, objects: ObjectStore) -> None:
        objects.put("a/b.json", b"one")
        assert objects.get("a/b.json") == b"one"
        objects.put("a/b.json", b"two")
        assert objects.get("a/b.json") == b"two"
        assert objects.exists("a/b.json")

    def test_put_new_refuses_what_is_there(self, objects: ObjectStore) -> None:
        objects.put_new("a/b", b"one")
        with pytest.raises(AlreadyExists, match="a/b"):
            objects.put_new("a/b", b"one")
        with pytest.raises(AlreadyExists):
            objects.put_new("a/b", b"two")
        assert objects.get("a/b") == b"one"

    def test_of_racing_creators_one_wins(self, objects: ObjectStore) -> None:
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

    def test_of_racing_creators_of_the_same_document_one_wins(self, objects: ObjectStore) -> None:
        def create(_: int) -> bool:
            try:
                objects.create_json("races/same", {"a": 1})
            except AlreadyExists:
                return False
            return True

        assert sum(race(8, create)) == 1

    def test_a_writer_whose_answer_got_lost_knows_its_own(
        self, objects: ObjectStore, monkeypatch: pytest.MonkeyPatch
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

    def test_a_creator_was_too_late_even_if_the_other_s_is_gone_since(
        self, objects: ObjectStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        objects.create_json("a/b.json", {"a": 1})
        put_new = objects.put_new

        def put_late(path: str, data: bytes) -> None:
            try:
                put_new(path, data)
            finally:
                objects.delete(path)

        monkeypatch.setattr(objects, "put_new", put_late)
        with pytest.raises(AlreadyExists):
            objects.create_json("a/b.json", {"a": 1})

    def test_json_without_finite_numbers_becomes_null(self, objects: ObjectStore) -> None:
        objects.create_json("a.json", {"a": float("nan"), "b": [float("inf"), 1.5]})
        document = objects.get_json("a.json")
        assert (document["a"], document["b"]) == (None, [None, 1.5])

    @pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff"])
    def test_damaged_json_is_named(self, objects: ObjectStore, data: bytes) -> None:
        objects.put("a/b.json", data)
        with pytest.raises(Damaged, match=r"a/b\.json"):
            objects.get_json("a/b.json")

    def test_what_is_not_there(self, objects: ObjectStore) -> None:
        assert not objects.exists("a/b")
        assert objects.written_at("a/b") is None
        with pytest.raises(NotFound, match="a/b"):
            objects.get("a/b")
        objects.delete("a/b")
        objects.put("a/b/c", b"")
        with pytest.raises(NotFound):
            objects.get("a/b")
        assert not objects.exists("a/b")

    def test_a_folder_is_no_object(self, objects: ObjectStore) -> None:
        objects.put("a/b", b"one")
        assert not objects.exists("a")
        with pytest.raises(NotFound, match="a"):
            objects.get("a")
        with pytest.raises(NotFound):
            objects.size("a")

    def test_what_is_told_of_objects(self, objects: ObjectStore) -> None:
        before = datetime.now(UTC) - timedelta(seconds=2)
        objects.put("a/b", b"one")
        objects.put("a/c/d", b"")
        objects.put("b/e", b"x")
        assert (objects.size("a/b"), objects.size("a/c/d")) == (3, 0)
        assert objects.sizes("a") == {"a/b": 3, "a/c/d": 0}
        assert objects.written("a").keys() == {"a/b", "a/c/d"}
        for written in (*objects.written("a").values(), objects.written_at("a/b")):
            assert written is not None
            assert before < written < datetime.now(UTC) + timedelta(seconds=2)
        assert {"a", "b"} <= set(objects.list_top()) <= {"a", "b", "staging"}

    def test_delete(self, objects: ObjectStore) -> None:
        objects.put("a/b", b"one")
        objects.delete("a/b")
        assert not objects.exists("a/b")
        objects.put_new("a/b", b"two")
        assert objects.get("a/b") == b"two"

    @pytest.mark.parametrize(
        "path", ["", "/a", "a/", "a//b", "../a", "a/../b", "a/./b", ".a", "a b", "a\\b", "a/ä", "%2e"]
    )
    def test_path_tricks_are_refused(self, objects: ObjectStore, path: str) -> None:
        for call in (objects.get, objects.exists, objects.delete, objects.list, objects.list_folders):
            with pytest.raises(InvalidPath):
                call(path)
        for write in (objects.put, objects.put_new):
            with pytest.raises(InvalidPath):
                write(path, b"")

    def test_list_is_sorted_and_paged(self, objects: ObjectStore) -> None:
        names = [f"a/b/{number:02d}" for number in (7, 3, 9, 0, 5, 1)]
        for name in [*names, "a/bb/00", "a/b/10/deep", "c"]:
            objects.put(name, b"x")
        everything = sorted([*names, "a/b/10/deep"])
        assert objects.list("a/b") == everything
        assert objects.list("a/b", limit=2) == everything[:2]
        assert objects.list("a/b", after=everything[1], limit=3) == everything[2:5]
        assert objects.list("a/b", after=everything[-1]) == []
        assert objects.list("nothing") == []

    def test_list_folders_is_sorted_and_paged(self, objects: ObjectStore) -> None:
        for name in ("z", "b", "a", "m"):
            objects.put(f"models/{name}/model.json", b"x")
            objects.put(f"models/{name}/log/0", b"x")
        objects.put("models/file", b"x")
        assert objects.list_folders("models") == ["a", "b", "m", "z"]
        assert objects.list_folders("models", after="a", limit=2) == ["b", "m"]
        assert objects.list_folders("nothing") == []

    def test_blobs_are_named_by_their_hash(self, objects: ObjectStore) -> None:
        data = os.urandom(100_000)
        sha = objects.put_blob(data)
        assert sha == hashlib.sha256(data).hexdigest()
        assert objects.put_blob(data) == sha
        assert objects.get_blob(sha) == data
        assert objects.list("blobs") == [f"blobs/{sha}"]
        assert race(6, lambda _: objects.put_blob(b"same")) == [objects.put_blob(b"same")] * 6

    def test_a_file_is_the_blob_of_its_bytes(self, objects: ObjectStore, tmp_path: Path) -> None:
        data = random.randbytes(9 * 2**20)
        (file := tmp_path / "file").write_bytes(data)
        sha = objects.put_blob(file)
        assert sha == hashlib.sha256(data).hexdigest()
        assert objects.put_blob(data) == objects.put_blob(file) == sha
        assert objects.get_blob(sha) == data
        objects.put(f"blobs/{sha}", b"other bytes")
        objects.put_blob(file)
        assert objects.get_blob(sha) == data
        assert race(3, lambda _: objects.put_blob(file)) == [sha] * 3

    @pytest.mark.parametrize("kind", [bytes, Path])
    def test_a_blob_outlasts_the_sweep_that_is_about_to_remove_it(
        self, objects: ObjectStore, tmp_path: Path, kind: type
    ) -> None:
        (file := tmp_path / "file").write_bytes(b"renewed")
        sha = objects.put_blob(b"renewed")
        objects.put_new(f"{CONDEMNED}/{sha}", b"")

        def swept() -> None:
            time.sleep(0.3)
            objects.delete(f"blobs/{sha}")
            objects.delete(f"{CONDEMNED}/{sha}")

        sweeping = threading.Thread(target=swept)
        sweeping.start()
        objects.put_blob(file if kind is Path else b"renewed")
        sweeping.join()
        assert objects.get_blob(sha) == b"renewed"

    def test_a_damaged_blob_is_noticed_and_named(self, objects: ObjectStore) -> None:
        sha = objects.put_blob(b"the right bytes")
        objects.put(f"blobs/{sha}", b"the wrong bytes")
        with pytest.raises(Damaged, match=f"blobs/{sha}") as caught:
            objects.get_blob(sha)
        assert caught.value.path == f"blobs/{sha}"
        objects.put_blob(b"the right bytes")
        assert objects.get_blob(sha) == b"the right bytes"

    def test_unknown_blobs(self, objects: ObjectStore) -> None:
        for name in ("0" * 64, "short", "../" * 20, "0" * 63 + "/"):
            with pytest.raises(NotFound):
                objects.get_blob(name)

    def test_files_are_streamed_and_checked(self, objects: ObjectStore, tmp_path: Path) -> None:
        source, target = tmp_path / "source", tmp_path / "target"
        source.write_bytes(os.urandom(9_000_001))
        name = objects.put_file(source)
        objects.get_file(name, target)
        assert target.read_bytes() == source.read_bytes()
        assert objects.list("data") == [f"data/{name}"]

    def test_uploads_of_the_same_bytes_are_deleted_apart(self, objects: ObjectStore, tmp_path: Path) -> None:
        source = tmp_path / "source"
        source.write_bytes(b"data")
        first, second = objects.put_file(source), objects.put_file(source)
        objects.delete(f"data/{first}")
        objects.get_file(second, tmp_path / "target")
        assert (tmp_path / "target").read_bytes() == b"data"

    def test_a_damaged_file_is_noticed_and_leaves_nothing(self, objects: ObjectStore, tmp_path: Path) -> None:
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

    def test_ping(self, objects: ObjectStore) -> None:
        objects.ping()


class TestFolder(ObjectsContract):
    """A local folder."""

    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        return tmp_path / "store"

    @pytest.fixture
    def objects(self, root: Path) -> ObjectStore:
        return ObjectStore.connect(VaultSettings(store_url=str(root)))


class TestS3(ObjectsContract):
    """A bucket behind the S3 protocol."""

    @pytest.fixture
    def objects(self, s3_settings: VaultSettings) -> ObjectStore:
        return ObjectStore.connect(s3_settings)

    def test_a_listing_fetches_no_more_than_asked(self, objects: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
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

    def test_names_that_we_never_give(self, objects: ObjectStore, s3_settings: VaultSettings) -> None:
        """Consoles mark a folder by an object of its name with a trailing slash."""
        objects.put("a/b/1", b"")
        objects.put("a/b/2", b"")
        store = s3.small_objects_client(s3_settings)
        for name in ("a b", "`1"):
            obstore.put(store, f"a/b/{name}", b"")
            obstore.put(store, f"a/{name}/1", b"")
        bucket, _, prefix = s3_settings.store_url.partition("://")[2].partition("/")
        client = boto3.client("s3", endpoint_url=s3_settings.s3_endpoint)
        for folder in ("a", "a/b"):
            client.put_object(Bucket=bucket, Key=f"{prefix}/{folder}/")
        assert objects.list("a/b") == ["a/b/1", "a/b/2"]
        assert objects.list("a/b", limit=1) == ["a/b/1"]
        assert sorted(objects.sizes("a/b")) == sorted(objects.written("a/b")) == ["a/b/1", "a/b/2"]
        assert objects.list_folders("a") == ["b"]

    def test_a_bucket_that_is_not_there(self, s3_settings: VaultSettings) -> None:
        objects = ObjectStore.connect(s3_settings.model_copy(update={"store_url": "s3://no-such-bucket"}))
        with pytest.raises(StoreUnavailable):
            objects.ping()
