"""Tests of the probe of stores, with sound and unsound ones."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from testing.servers.service import wait_until
from testing.servers.unsound_s3 import Flaw, UnsoundS3, unsound_s3
from vault.errors import StoreUnavailable, UnsoundStore
from vault.settings import VaultSettings
from vault.storage.object_store import ObjectStore
from vault.storage.probe import StoreProbe
from vault.vault import Vault


def probe(settings: VaultSettings) -> StoreProbe:
    return StoreProbe(ObjectStore.connect(settings), settings)


def left(settings: VaultSettings) -> list[str]:
    """What probes have left in a store."""
    return ObjectStore.connect(settings).list("probe")


class SoundStore:
    """What holds of every sound store; a subclass provides its `settings`."""

    @pytest.fixture
    def settings(self) -> VaultSettings:
        raise NotImplementedError

    def test_a_success_is_remembered_and_nothing_else_stays(self, settings: VaultSettings) -> None:
        probe(settings).require()
        (record,) = left(settings)
        objects = ObjectStore.connect(settings)
        assert objects.get_json(record)["sound"] is True
        written = objects.written_at(record)
        probe(settings).require()
        assert objects.written_at(record) == written
        assert probe(settings).repeat()
        assert left(settings) == [record]
        assert objects.get_json(record)["sound"] is True

    def test_a_copy_at_another_address_is_probed_again(self, settings: VaultSettings) -> None:
        probe(settings).require()
        elsewhere = settings.model_copy(update={"store_url": f"{settings.store_url}/"})
        probe(elsewhere).require()
        assert len(left(settings)) == 1
        objects = ObjectStore.connect(settings)
        StoreProbe(objects, settings.model_copy(update={"store_url": f"{settings.store_url}-moved"})).require()
        assert len(left(settings)) == 2

    def test_an_outcome_that_cannot_be_read_is_found_out_again(self, settings: VaultSettings) -> None:
        probe(settings).require()
        (record,) = left(settings)
        ObjectStore.connect(settings).put(record, b"{")
        probe(settings).require()
        assert ObjectStore.connect(settings).get_json(record)["sound"] is True

    def test_several_at_once(self, settings: VaultSettings) -> None:
        first, second = probe(settings), probe(settings)
        assert first.repeat()
        assert second.repeat()
        assert len(left(settings)) == 1


class TestFolder(SoundStore):
    """A local folder."""

    @pytest.fixture
    def settings(self, vault_settings: VaultSettings) -> VaultSettings:
        return vault_settings

    def test_no_empty_folders_stay(self, settings: VaultSettings) -> None:
        probe(settings).require()
        folder = settings.store_folder
        assert folder is not None
        assert sorted(path.name for path in (folder / "probe").iterdir()) == ["create-if-absent"]


class TestS3(SoundStore):
    """A bucket of a sound S3."""

    @pytest.fixture
    def settings(self, s3_settings: VaultSettings) -> VaultSettings:
        return s3_settings


@pytest.fixture
def proxied(s3_settings: VaultSettings, request: pytest.FixtureRequest) -> Iterator[tuple[UnsoundS3, VaultSettings]]:
    """A proxy with the flaw that the test names, and settings that lead through it."""
    flaw: Flaw = request.param
    assert s3_settings.s3_endpoint is not None
    with unsound_s3(s3_settings.s3_endpoint, flaw) as proxy:
        # A store that says 501 is asked again for a while.
        yield proxy, s3_settings.model_copy(update={"s3_endpoint": proxy.url, "store_timeout_seconds": 5.0})


UNSOUND = {
    "ignores": "8 of 8 racing writers were told",
    "looks first": "racing writers were told",
    "answers 200": "8 of 8 racing writers were told",
    "refuses all": "none of 8 writers could create",
    "not implemented": "it does not know conditional writes",
}


@pytest.mark.parametrize(("proxied", "why"), UNSOUND.items(), indirect=["proxied"], ids=UNSOUND)
def test_an_unsound_store_is_refused_by_name(proxied: tuple[UnsoundS3, VaultSettings], why: str) -> None:
    proxy, settings = proxied
    asked = probe(settings)
    with pytest.raises(UnsoundStore, match=why) as caught:
        asked.require()
    assert settings.store_url in str(caught.value)
    assert left(settings) == []
    # This process knows, and asks no more.
    written = len(proxy.written)
    with pytest.raises(UnsoundStore, match=why):
        asked.require()
    assert len(proxy.written) == written


@pytest.mark.parametrize("proxied", ["ignores"], indirect=True)
def test_a_store_that_was_mended_is_taken(proxied: tuple[UnsoundS3, VaultSettings]) -> None:
    proxy, settings = proxied
    with pytest.raises(UnsoundStore):
        probe(settings).require()
    proxy.flaw = "none"
    probe(settings).require()
    assert len(left(settings)) == 1


@pytest.mark.parametrize("proxied", ["none"], indirect=True)
def test_what_is_remembered_is_forgotten_when_it_is_no_longer_true(proxied: tuple[UnsoundS3, VaultSettings]) -> None:
    proxy, settings = proxied
    probe(settings).require()
    proxy.flaw = "looks first"
    probe(settings).require()  # remembered
    with pytest.raises(UnsoundStore):
        probe(settings).repeat()
    assert left(settings) == []


@pytest.mark.parametrize("proxied", ["read-only"], indirect=True)
def test_who_may_not_write_skips_it_and_says_so(
    proxied: tuple[UnsoundS3, VaultSettings], caplog: pytest.LogCaptureFixture
) -> None:
    _, settings = proxied
    with caplog.at_level(logging.INFO, "engram.vault"):
        probe(settings).require()
    assert "the store is not probed, since it may not be written to" in caplog.text
    assert not probe(settings).repeat()
    assert left(settings) == []


@pytest.mark.parametrize("proxied", ["looks first"], indirect=True)
def test_nothing_is_created_in_an_unsound_store(proxied: tuple[UnsoundS3, VaultSettings]) -> None:
    _, settings = proxied
    with Vault.connect(settings) as vault:
        vault.guard_store()
        with pytest.raises(UnsoundStore):
            vault.objects.create_json("models/digits/model.json", {"a": 1})
        with pytest.raises(UnsoundStore):
            vault.objects.put_blob(b"one")
        assert vault.objects.list_top() == []


def test_a_store_that_is_away_at_first_is_probed_before_the_first_write(
    s3_settings: VaultSettings, caplog: pytest.LogCaptureFixture
) -> None:
    away = s3_settings.model_copy(update={"s3_endpoint": "http://127.0.0.1:9", "store_timeout_seconds": 0.5})
    with Vault.connect(away) as vault:
        vault.check_at_start(lambda: None)
        assert "the store will be probed before anything is created in it" in caplog.text
        with pytest.raises(StoreUnavailable):
            vault.objects.put_new("a/b", b"one")
    with Vault.connect(s3_settings) as vault:
        vault.guard_store()
        assert left(s3_settings) == []
        vault.objects.put_new("a/b", b"one")
        assert len(left(s3_settings)) == 1


def test_a_store_that_hangs_keeps_no_process_from_starting(
    s3_settings: VaultSettings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And stops it when it turns out to be unsound."""
    monkeypatch.setattr("vault.vault._START_SECONDS", 0.01)
    assert s3_settings.s3_endpoint is not None
    told: list[bool] = []
    with unsound_s3(s3_settings.s3_endpoint, "looks first") as proxy:
        settings = s3_settings.model_copy(update={"s3_endpoint": proxy.url})
        with Vault.connect(settings) as vault:
            vault.check_at_start(lambda: told.append(True))
            assert "the store takes its time" in caplog.text
            with pytest.raises(UnsoundStore):
                vault.objects.put_new("a/b", b"one")
            wait_until(lambda: told)
    assert "does not keep racing writers apart" in caplog.text


def test_earlier_releases_read_what_is_remembered(vault_settings: VaultSettings, tmp_path: Path) -> None:
    """They look at every record in folders they do not know, and at nothing else there."""
    probe(vault_settings).require()
    objects = ObjectStore.connect(vault_settings)
    for folder in objects.list_top():
        for path in objects.list(folder):
            assert path.endswith(".json")
            objects.get_json(path)
