"""Tests of the vault's settings."""

from __future__ import annotations

import pytest

from vault.settings import VaultSettings, broker_url


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
    ],
)
def test_broker_url(url: str, broker: str) -> None:
    assert broker_url(url) == broker
