"""Vault fixtures in a folder and in a bucket, with timeouts that suit a busy machine."""

from __future__ import annotations

import pytest

from vault.settings import VaultSettings

PATIENT = {"lease_seconds": 120.0, "store_timeout_seconds": 60.0}
"""Nothing here waits for these to run out: what is to run out has a time of its own."""


@pytest.fixture
def vault_settings(vault_settings: VaultSettings) -> VaultSettings:
    """Settings of a vault in an empty folder, with an empty Redis."""
    return vault_settings.model_copy(update=PATIENT)


@pytest.fixture
def s3_settings(s3_settings: VaultSettings) -> VaultSettings:
    """Settings of a vault in an empty part of a bucket; the credentials are in the environment."""
    return s3_settings.model_copy(update=PATIENT)
