"""Tests of warnings on misspelt settings."""

from __future__ import annotations

import pytest

from service.settings import ServiceSettings
from vault.settings import NAMES, warn_of_unknown_names
from worker.settings import WorkerSettings


def test_all_names_are_known() -> None:
    assert {*ServiceSettings.model_fields, *WorkerSettings.model_fields} == NAMES


@pytest.mark.parametrize(
    ("name", "value", "warning"),
    [
        ("ENGRAM_IMAGE_PER_DAY", "7", "no setting, and changes nothing; did you mean ENGRAM_IMAGES_PER_DAY?"),
        ("ENGRAM_WORKER_METRIC_PORT", "9", "no setting, and changes nothing; did you mean ENGRAM_WORKER_METRICS_PORT?"),
        ("ENGRAM_COLOUR", "hunter22", "ENGRAM_COLOUR is no setting, and changes nothing."),
        ("ENGRAM_IMAGES_PER_DAY", "7", None),
        ("engram_images_per_day", "7", None),
        ("ENGRAM_URL", "http://localhost:8000", None),
        ("ENGRAM_API_KEY", "hunter22", None),
        ("OTHER_IMAGE_PER_DAY", "7", None),
        ("ENGRAM_PORT", "tcp://10.0.0.7:8000", None),
        ("ENGRAM_WORKER_PORT_9100_TCP_ADDR", "10.0.0.7", None),
        ("ENGRAM_SERVICE_HOST", "10.0.0.7", None),
        ("ENGRAM_SERVICE_PORT_HTTP", "8000", None),
    ],
)
def test_what_is_told(caplog: pytest.LogCaptureFixture, name: str, value: str, warning: str | None) -> None:
    warn_of_unknown_names({name: value, "PATH": "/bin"})
    assert len(caplog.records) == (warning is not None)
    assert (warning or "") in caplog.text
    assert "hunter22" not in caplog.text
