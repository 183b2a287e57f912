"""Tests of versions that are served on another device than the processor."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from torch.utils import backend_registration

from service.settings import ServiceSettings


@pytest.mark.skipif(
    not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"),
    reason="this PyTorch knows no devices that are written in Python",
)
def test_a_version_on_another_device_has_digests_of_its_own(learned_settings: ServiceSettings) -> None:
    """Its answers are compared with the certified ones, and from then on with its own."""
    command = [sys.executable, "-m", "tests.service.models.soundness.device", learned_settings.store_url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout)
    assert found["devices"] == ["elsewhere", "elsewhere"]
    assert found["alike"]
    tasks = [task for task, _, _ in found["digests"]]
    assert len(set(tasks)) == len(tasks) > 1
    assert {tuple(about) for _, *about in found["digests"]} == {("elsewhere", "close")}
