"""Tests of the example scripts, run as users run them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from testing.processes.processes import plain_environment

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


def output(script: str, *arguments: str, folder: Path) -> str:
    """What a script prints when it is run in `folder` and succeeds."""
    command = [sys.executable, str(EXAMPLES / script), *arguments]
    environment = {**plain_environment(), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_every_example_is_run_here() -> None:
    text = Path(__file__).read_text(encoding="utf-8")
    scripts = sorted(path.name for path in EXAMPLES.glob("*.py"))
    assert scripts
    assert [name for name in scripts if f'output("{name}"' not in text] == []


def test_learn_from_a_folder(tmp_path: Path) -> None:
    said = output("learn_from_a_folder.py", "work", folder=tmp_path)
    learned = re.findall(r"^learned ([\w-]+): \d+ images, held-out accuracy ([\d.]+)%$", said, re.MULTILINE)
    assert [task for task, _ in learned] == ["two-three", "zero-one"]
    assert all(float(accuracy) > 95 for _, accuracy in learned)
    assert "the saved model answers two-three with the same bytes: yes" in said
    assert "an image of two-three/three is answered: two-three, three" in said
    assert "an image of zero-one/one is answered: zero-one, one" in said
    assert (tmp_path / "work" / "model" / "manifest.json").exists()


def test_add_a_class_a_week(tmp_path: Path) -> None:
    said = output("add_a_class_a_week.py", "--weeks", "2", folder=tmp_path)
    weeks = re.findall(r"earlier answers (\w+); right without a task given: (\d+) of (\d+)", said)
    assert {same for same, _, _ in weeks} == {"identical"}
    assert [int(asked) for _, _, asked in weeks] == [40, 80]
    assert all(int(right) >= 0.9 * int(asked) for _, right, asked in weeks)
    unknown = re.findall(r"(\d+) of 40 images of '\w+' are unknown before it is learned", said)
    assert len(unknown) == 1
    assert all(int(count) >= 20 for count in unknown)
    assert re.search(r"^layer conv1: \d+ of \d+ units are free$", said, re.MULTILINE)


def test_serve_and_ask(tmp_path: Path) -> None:
    said = output("serve_and_ask.py", "work", folder=tmp_path)
    assert "learned zero-one: version 1" in said
    assert "learned two-three: version 2" in said
    assert "answer: task two-three, label three, known: True" in said
    assert "certificates of versions 1 and 2 agree on zero-one: yes" in said
    assert (tmp_path / "work" / "heatmap.png").read_bytes().startswith(b"\x89PNG")
    assert "the worker has stopped" in (tmp_path / "work" / "serve.log").read_text()
