"""Models over six architectures that people use, at 224 pixels, with random weights; many minutes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.engram.methods.staged import answering, life

ARCHITECTURES: Mapping[str, Mapping[str, Any]] = {
    "torchvision/resnet50": {"num_classes": 10},
    "torchvision/mobilenet_v3_large": {"num_classes": 10},
    "torchvision/vit_b_16": {"num_classes": 10},
    "timm/deit_tiny_patch16_224": {"num_classes": 10},
    "timm/vit_small_patch14_dinov2": {"num_classes": 0, "img_size": 224},
    "timm/convnext_tiny": {"num_classes": 10},
}


def said(module: ModuleType, *arguments: str) -> Any:
    """What a module says in a process of its own."""
    command = [sys.executable, "-m", module.__name__, *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=1200)
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.timeout(2400)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_model_keeps_the_laws_and_answers_alike_in_a_new_process(name: str, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    found = said(life, name, json.dumps(ARCHITECTURES[name]), str(tmp_path))
    print(name, found["seconds"], found["megabytes"], "MB at most")
    assert found["same"]
    assert said(answering, str(tmp_path / "models")) == {"model": found["digests"]}
