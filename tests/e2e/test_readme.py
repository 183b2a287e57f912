"""The README's session works when it is pasted, and its Python works too."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from testing.processes.processes import plain_environment
from tests.e2e.test_standalone import serving

README = Path(__file__).parents[2] / "README.md"


def _blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)


def test_the_session_works_when_pasted(tmp_path: Path) -> None:
    lines = "\n".join(_blocks("bash session"))
    assert "curl" in lines
    with serving(tmp_path / "data") as server:
        script = lines.replace("http://localhost:8000", server.url)
        script = script.replace(".venv/bin/engram", f"{sys.executable} -P -m service").replace("curl ", "curl --fail ")
        environment = {**plain_environment(), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
    assert done.returncode == 0, done.stderr[-2000:]
    answer = json.loads(next(line for line in re.split(r"\n|(?<=\})(?=\{)", done.stdout) if '"predictions"' in line))
    (prediction,) = answer["predictions"]
    assert answer["version"] == 2
    assert prediction["task"] == "two-three"
    assert len(prediction["top"]) == 3
    assert (tmp_path / "heatmap.png").read_bytes().startswith(b"\x89PNG")
    assert '"logits_sha256"' in done.stdout


def test_the_python_example_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = _blocks("python")
    monkeypatch.chdir(tmp_path)
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(40) % 2
    images = torch.randint(0, 60, (40, 1, 28, 28), dtype=torch.uint8, generator=generator)
    images[labels == 1, :, 10:18] += 150
    names: dict[str, object] = {"images": images, "labels": labels, "new_images": images[:4]}
    exec(compile(code, str(README), "exec"), names)
    answers = names["answers"]
    assert isinstance(answers, list)
    assert [answer.label for answer in answers] == ["zero", "one", "zero", "one"]
    assert (tmp_path / "model" / "manifest.json").exists()
