"""Tests of the vault's settings."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from celery import Celery
from pydantic import SecretStr, ValidationError

from testing.servers.redis import RedisServer
from vault.errors import RedisUnavailable
from vault.settings import VaultSettings, broker_url, explain_settings_errors, warn_of_unknown_names
from vault.vault import Vault


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGRAM_STORE_URL", "s3://bucket/prefix")
    monkeypatch.setenv("ENGRAM_LEASE_SECONDS", "2.5")
    settings = VaultSettings()
    assert (settings.store_url, settings.lease_seconds, settings.store_folder) == ("s3://bucket/prefix", 2.5, None)


@pytest.mark.parametrize(
    ("url", "broker"),
    [
        ("redis://host:1/2", "redis://host:1/2"),
        ("rediss://host", "rediss://host"),
        ("unix:///run/redis.sock", "redis+socket:///run/redis.sock?virtual_host=0"),
        ("unix:///run/redis.sock?db=3", "redis+socket:///run/redis.sock?virtual_host=3"),
        ("unix://:x%2Fy@/run/redis.sock?db=3", "redis+socket://:x%2Fy@/run/redis.sock?virtual_host=3"),
    ],
)
def test_broker_url(url: str, broker: str) -> None:
    assert broker_url(url) == broker


@pytest.fixture
def secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of secrets."""
    folder = tmp_path / "secrets"
    folder.mkdir()
    monkeypatch.setenv("ENGRAM_SECRETS_DIR", str(folder))
    return folder


def test_secrets_come_from_files(secrets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (secrets / "engram_redis_password").write_text("hunter/2@\n")
    (secrets / "engram_s3_access_key_id").write_text("someone\n")
    (secrets / "engram_s3_secret_access_key").write_text("hunter22")
    monkeypatch.setenv("ENGRAM_REDIS_URL", "redis://redis:6379/1")
    settings = VaultSettings()
    assert settings.redis_url == "redis://:hunter%2F2%40@redis:6379/1"
    assert settings.s3_access_key_id is not None
    assert settings.s3_access_key_id.get_secret_value() == "someone"
    assert settings.secrets == ["hunter/2@", "hunter22"]
    assert "hunter22" not in repr(settings)


def test_variables_go_before_files(secrets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (secrets / "engram_redis_password").write_text("hunter22")
    (secrets / "engram_lease_seconds").write_text("7")
    monkeypatch.setenv("ENGRAM_REDIS_PASSWORD", "")
    settings = VaultSettings(redis_url="redis://redis")
    assert (settings.redis_url, settings.lease_seconds) == ("redis://redis", 7)


@pytest.mark.parametrize(
    ("url", "whole"),
    [
        ("redis://host", "redis://:secret@host"),
        ("rediss://user@host:1/2", "rediss://user:secret@host:1/2"),
        ("redis://user:own@host", "redis://user:own@host"),
        ("unix:///run/redis.sock?db=3", "unix://:secret@/run/redis.sock?db=3"),
        ("valkey://host:6379/0", "redis://:secret@host:6379/0"),
        ("valkeys://host", "rediss://:secret@host"),
    ],
)
def test_a_password_of_its_own_is_for_urls_without_one(url: str, whole: str) -> None:
    assert VaultSettings(redis_url=url, redis_password=SecretStr("secret")).redis_url == whole


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("redis+cluster://host", "a cluster cannot be used by Celery"),
        ("rediss+cluster://host", "a cluster cannot be used by Celery"),
        ("redis://one:6379,two:6379/0", "a cluster cannot be used by Celery"),
        ("sentinel://host:26379", "it must begin with redis://, rediss:// or unix://"),
        ("host:6379", "it must begin with"),
        ("", "it must begin with"),
    ],
)
def test_addresses_that_celery_cannot_use(url: str, why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        VaultSettings(redis_url=url)


def test_what_cannot_be_used_is_told_in_a_sentence(
    secrets: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def told() -> str:
        with pytest.raises(SystemExit) as caught, explain_settings_errors():
            VaultSettings()
        assert caught.value.code == 78
        return capsys.readouterr().err

    (secrets / "engram_s3_access_key_id").write_text("someone")
    assert told() == "ENGRAM_S3_ACCESS_KEY_ID and ENGRAM_S3_SECRET_ACCESS_KEY go together.\n"
    monkeypatch.setenv("ENGRAM_REDIS_URL", "redis+cluster://:hunter22@host")
    assert "ENGRAM_REDIS_URL cannot be used: a cluster cannot be used" in told()
    monkeypatch.setenv("ENGRAM_SECRETS_DIR", str(secrets / "none"))
    assert "ENGRAM_SECRETS_DIR cannot be used: " in told()


def test_a_secret_that_may_not_be_read_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    user = os.geteuid()
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        monkeypatch.setenv("ENGRAM_SECRETS_DIR", folder)
        (Path(folder) / "engram_redis_password").write_text("hunter22")
        (Path(folder) / "engram_redis_password").chmod(0)
        if user == 0:  # who may read every file
            os.seteuid(65534)
        try:
            with pytest.raises(SystemExit), explain_settings_errors():
                VaultSettings()
        finally:
            os.seteuid(user)
    assert capsys.readouterr().err.startswith(f"The secret {folder}/engram_redis_password cannot be read: ")


def test_a_misspelt_secret_is_warned_of(secrets: Path, caplog: pytest.LogCaptureFixture) -> None:
    (secrets / "engram_redis_pasword").write_text("hunter22")
    (secrets / "engram_redis_password").write_text("hunter22")
    (secrets / "other").write_text("hunter22")
    warn_of_unknown_names({"ENGRAM_SECRETS_DIR": str(secrets)})
    (record,) = caplog.records
    assert record.getMessage() == (
        "engram_redis_pasword is no setting, and changes nothing; did you mean ENGRAM_REDIS_PASSWORD?"
    )


@pytest.mark.parametrize("options", [{"requirepass": "hun/ter@22"}])
def test_redis_and_celery_take_the_password(options: dict[str, str]) -> None:
    server = RedisServer(**options)
    try:
        settings = VaultSettings(redis_url=server.url, redis_password=SecretStr(options["requirepass"]))
        with Vault.connect(settings) as vault:
            vault.ping_redis()
        Celery(broker=broker_url(settings.redis_url)).send_task("engram.wake", queue="words", retry=False)
        with pytest.raises(RedisUnavailable), Vault.connect(VaultSettings(redis_url=server.url)) as vault:
            vault.ping_redis()
    finally:
        server.remove()
