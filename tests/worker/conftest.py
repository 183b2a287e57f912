"""Fixtures: a vault with a model to learn for."""

from __future__ import annotations

import pytest

from testing.data.models import create
from vault.vault import Vault


@pytest.fixture
def ready(vault: Vault) -> Vault:
    """A vault with the model `digits`, which has learned nothing."""
    create(vault)
    return vault
