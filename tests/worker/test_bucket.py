"""Tests of training data that lies in a bucket as single objects."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from zipfile import ZipFile

import boto3
import pytest

from engram.data.containers import ArchiveLimits
from engram.errors import ArchiveTooLarge, Cancelled, TooManyEntries
from vault.settings import VaultSettings
from worker.dataset.bucket import TOGETHER, DataUnavailable, fetch

FILES = {"cat/a b.png": b"1", "cat/é.png": b"22", "dog/deep/1.png": b"333", "dog/empty": b""}


Put = Callable[[str, bytes], None]


@pytest.fixture
def put(s3_settings: VaultSettings) -> Iterator[Put]:
    """What puts objects into a bucket in which there are a few under `given/set/`, and others beside it."""
    bucket, _, prefix = s3_settings.store_url.removeprefix("s3://").partition("/")
    client = boto3.client("s3", endpoint_url=s3_settings.s3_endpoint)

    def put(name: str, data: bytes) -> None:
        client.put_object(Bucket=bucket, Key=f"{prefix}/given/{name}", Body=data)

    for name, data in FILES.items():
        put(f"set/{name}", data)
    for name in ("set-2/cat/1.png", "other.png"):
        put(name, b"other")
    put("set/", b"")  # as consoles make a folder
    yield put
    client.close()


def never() -> bool:
    return False


@pytest.mark.usefixtures("put")
def test_the_objects_under_a_prefix_are_an_archive(s3_settings: VaultSettings, tmp_path: Path) -> None:
    path = tmp_path / "data"
    fetch(f"{s3_settings.store_url}/given/set/", path, s3_settings, ArchiveLimits(), never)
    with ZipFile(path) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == FILES
        assert archive.namelist() == sorted(FILES)


def test_many_objects_come_in_their_order(put: Put, s3_settings: VaultSettings, tmp_path: Path) -> None:
    for number in range(TOGETHER + 3):
        put(f"many/{number:03}", str(number).encode())
    fetch(f"{s3_settings.store_url}/given/many/", tmp_path / "data", s3_settings, ArchiveLimits(), never)
    with ZipFile(tmp_path / "data") as archive:
        assert [archive.read(name) for name in archive.namelist()] == [b"%d" % n for n in range(TOGETHER + 3)]


@pytest.mark.usefixtures("put")
@pytest.mark.parametrize(
    ("limits", "error"),
    [
        (ArchiveLimits(max_entries=4), TooManyEntries),
        (ArchiveLimits(max_entry_bytes=2), ArchiveTooLarge),
        (ArchiveLimits(max_total_bytes=5), ArchiveTooLarge),
    ],
)
def test_more_than_an_archive_may_have_is_not_fetched(
    s3_settings: VaultSettings, tmp_path: Path, limits: ArchiveLimits, error: type[Exception]
) -> None:
    with pytest.raises(error):
        fetch(f"{s3_settings.store_url}/given/set/", tmp_path / "data", s3_settings, limits, never)
    assert not (tmp_path / "data").exists()


@pytest.mark.usefixtures("put")
@pytest.mark.parametrize("name", ["given/none/", "given/other.png/", "given/none.zip", "given/set"])
def test_nothing_is_said_to_be_nothing(s3_settings: VaultSettings, tmp_path: Path, name: str) -> None:
    with pytest.raises(DataUnavailable, match=name):
        fetch(f"{s3_settings.store_url}/{name}", tmp_path / "data", s3_settings, ArchiveLimits(), never)


@pytest.mark.usefixtures("put")
@pytest.mark.parametrize("name", ["given/set/", "given/other.png"])
def test_it_can_be_stopped(s3_settings: VaultSettings, tmp_path: Path, name: str) -> None:
    with pytest.raises(Cancelled):
        fetch(f"{s3_settings.store_url}/{name}", tmp_path / "data", s3_settings, ArchiveLimits(), lambda: True)


@pytest.mark.parametrize("uri", ["gs://bucket/a/", "az://box/a.zip"])
def test_other_storage_that_cannot_be_read_is_said_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str
) -> None:
    for name in ("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_SERVICE_ACCOUNT_PATH"):
        monkeypatch.setenv(name, str(tmp_path / "none.json"))
    for name in ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(DataUnavailable, match=uri):
        fetch(uri, tmp_path / "data", VaultSettings(), ArchiveLimits(), never)
