"""Tests of the data limits, which service and worker have in common."""

from __future__ import annotations

import pytest

from engram.data.containers import ArchiveLimits
from engram.data.images import ImageLimits
from service.settings import ServiceSettings
from vault.settings import DataLimitSettings
from worker.settings import WorkerSettings


@pytest.mark.parametrize("kind", [ServiceSettings, WorkerSettings])
def test_limits_of_data_are_read_from_the_environment(
    kind: type[ServiceSettings] | type[WorkerSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, name in enumerate(DataLimitSettings.model_fields, 2):
        monkeypatch.setenv(f"ENGRAM_{name.upper()}", str(number))
    settings = kind()
    assert ImageLimits.of(settings) == ImageLimits(
        max_pixels=2, max_bytes=3, max_scans=4, max_parts=5, max_seconds=6, max_memory=7
    )
    assert ArchiveLimits.of(settings) == ArchiveLimits(
        max_entries=8, max_total_bytes=9, max_entry_bytes=3, max_ratio=10, max_decoded_bytes=11
    )


def test_limits_by_default_are_the_learner_s_own() -> None:
    settings = DataLimitSettings()
    assert (ImageLimits.of(settings), ArchiveLimits.of(settings)) == (ImageLimits(), ArchiveLimits())
