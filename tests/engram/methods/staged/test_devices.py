"""Tests of models on another device than the processor, which refuses what does not lie on it.

No GPU is asked here: `python -m benchmarks device` asks one, where there is one.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest
from torch.utils import backend_registration

from engram import snapshot
from engram.memory import restore
from engram.snapshot import Parts
from tests.engram.methods.staged.over_networks import TOKENS, VARIANTS, grown
from tests.engram.methods.staged.test_laws import parts_of

pytestmark = pytest.mark.skipif(
    not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"),
    reason="this PyTorch knows no devices that are written in Python",
)

READING = "reads commons"


def written(parts: Parts, folder: Path) -> Path:
    memory = restore(parts.definition, parts.engrams, parts.recogniser, parts.kept, parts.budget)
    snapshot.write(parts, memory.tasks, folder)
    return folder


def compared(folder: Path, **kinds: Parts) -> dict[str, Any]:
    """What models do on both devices, by the kind of model."""
    folders = [written(parts, folder / name) for name, parts in kinds.items()]
    command = [sys.executable, "-m", "tests.engram.methods.staged.devices", *map(str, folders)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


ROUNDED = {"answers", "of all", "of one task", "logits"}
"""What has other last bits where attention, which another device computes by other steps, gives logits of its own."""


def alike(found: dict[str, Any], but: Collection[str] = ()) -> None:
    assert dict.fromkeys(found["same"], True) == found["same"] | dict.fromkeys(but, True)
    assert found["devices"] == ["elsewhere"]
    assert found["environment"] == "elsewhere"


def test_models_answer_alike_on_another_device(tmp_path: Path) -> None:
    kinds = {READING: parts_of("selected", (0, 1, 2)), "adapter": grown("adapter").parts}
    found = compared(tmp_path, **kinds)
    assert found.keys() == kinds.keys()
    for one in found.values():
        alike(one)


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_models_over_networks_answer_alike_on_another_device(name: str, tmp_path: Path) -> None:
    found = compared(tmp_path, model=grown(name).parts)
    alike(found["model"], ROUNDED if VARIANTS[name].adopted and VARIANTS[name].network == TOKENS else ())
