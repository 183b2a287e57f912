"""Tests of README, tutorial and Python guide: their sessions pasted, their code run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from testing.processes.processes import plain_environment
from tests.e2e.test_standalone import serving

ROOT = Path(__file__).parents[2]
README, TUTORIAL, GUIDE = ROOT / "README.md", ROOT / "docs" / "tutorial.md", ROOT / "docs" / "python.md"
WEEKLY = ROOT / "docs" / "weekly.md"

BACKBONES = "tests/service/cli/test_backbones.py"
BROUGHT = "--architecture torchvision/resnet18 --name resnet18 --classes classes.txt"

RUN_BY = {
    "make setup": (".ci/run", "make setup"),
    "make demo": (".ci/run", "make demo"),
    "make test": (".ci/run", "make test"),
    "make docs": (".ci/run", "make docs"),
    ".venv/bin/engram serve --data ./engram-data": ("tests/e2e/test_standalone.py", '"serve", "--data"'),
    ".venv/bin/engram serve --data ./tutorial-data": ("tests/e2e/test_standalone.py", '"serve", "--data"'),
    "engram backbones convert resnet18.pth resnet18.safetensors": (BACKBONES, '"convert"'),
    f"engram backbones add resnet18.safetensors {BROUGHT}": (BACKBONES, '"--classes"'),
    "engram models create vision --over resnet18 --adopt imagenet": (BACKBONES, '"--adopt"'),
    "engram evaluate DIR --model digits --versions 2,3": (
        "tests/service/cli/test_remote.py",
        '"evaluate", str(digits)',
    ),
    "engram verify": ("tests/service/cli/test_verify.py", 'run("verify"'),
    "docker compose up": ("tests/e2e/test_compose.py", "docker-compose.yml"),
}
"""Command lines that are no part of a session: the file that runs them, and the text in it that does."""
SESSIONS = {"bash", "python"}
"""Languages of the blocks that are run here."""
PROGRAMS = r"(?:\.venv/bin/\S+|make|engram|docker|python3?|pip|curl|pytest) "


def blocks(document: Path, language: str) -> list[str]:
    """The fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", document.read_text(), re.MULTILINE | re.DOTALL)


def session(document: Path, folder: Path) -> str:
    """What a document's session prints when it is pasted into a shell beside a running `engram serve`."""
    lines = "\n".join(blocks(document, "bash"))
    assert "http://localhost:8000" in lines
    with serving(folder / "data") as server:
        script = lines.replace("http://localhost:8000", server.url).replace("./weekly-data", "./data")
        script = script.replace(".venv/bin/engram", f"{sys.executable} -P -m service").replace("curl ", "curl --fail ")
        environment = {**plain_environment(), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script], cwd=folder, env=environment, capture_output=True, text=True
        )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def documents(said: str) -> list[dict[str, Any]]:
    """The JSON objects in the output of a session, in their order."""
    found: list[dict[str, Any]] = []
    start = said.find("{")
    while start >= 0:
        try:
            one, end = json.JSONDecoder().raw_decode(said, start)
        except ValueError:
            end = start + 1
        else:
            found.append(one)
        start = said.find("{", end)
    return found


def answers(said: str) -> list[dict[str, Any]]:
    """The answers to predictions in the output of a session."""
    return [one for one in documents(said) if "predictions" in one]


def test_the_session_works_when_pasted(tmp_path: Path) -> None:
    said = session(README, tmp_path)
    (answer,) = answers(said)
    (prediction,) = answer["predictions"]
    assert answer["version"] == 2
    assert prediction["task"] == "two-three"
    assert len(prediction["top"]) == 3
    assert (tmp_path / "heatmap.png").read_bytes().startswith(b"\x89PNG")
    assert '"logits_sha256"' in said


def test_the_tutorial_works_when_pasted(tmp_path: Path) -> None:
    said = session(TUTORIAL, tmp_path)
    known, stranger = (answer["predictions"][0] for answer in answers(said))
    assert (known["task"], known["label"], known["known"]) == ("zero-one", "one", True)
    assert stranger["task"] == "zero-one"
    assert "the old answer is the same" in said
    found = documents(said)
    assert [one["state"] for one in found if "attempts" in one] == ["succeeded", "succeeded"]
    first, second = ({row["task"]: row["logits_sha256"] for row in one["tasks"]} for one in found if "probes" in one)
    assert second.keys() == {"zero-one", "two-three"}
    assert first == {"zero-one": second["zero-one"]}
    (history,) = (one["versions"] for one in found if "versions" in one)
    assert [version["kind"] for version in history] == ["activate", "learn", "learn", "create"]


@pytest.mark.slow
def test_a_week_works_when_pasted(tmp_path: Path) -> None:
    said = session(WEEKLY, tmp_path)
    assert "Learned week-1: version 3 of weekly" in said
    assert re.search(r"^start +one +\d+ +1\.0000 +1\.0000$", said, re.MULTILINE)
    assert re.search(r"^week-1 +two +\d+ +- +(1\.0000|0\.9)", said, re.MULTILINE)
    assert "weekly, version 4: The certificate holds." in said
    assert re.search(r"^.*activate +weekly +4", said, re.MULTILINE)


def test_the_tutorial_can_follow_the_readme() -> None:
    texts = [document.read_text() for document in (README, TUTORIAL)]
    for pattern in (r"/models/([\w-]+)", r'"name": "([\w-]+)"', r"serve --data (\S+)"):
        of_readme, of_tutorial = (set(re.findall(pattern, text)) for text in texts)
        assert of_readme
        assert of_tutorial
        assert not of_readme & of_tutorial, pattern


@pytest.mark.parametrize(
    ("call", "message"), [("learn zero-one", "the task zero-one was refused"), ("ask", "the question was refused")]
)
@pytest.mark.parametrize("answer", ['{"code": "model_not_found"}', ""])
def test_the_tutorial_stops_where_a_request_is_refused(call: str, message: str, answer: str) -> None:
    functions = re.findall(r"^\w+\(\) \{\n.*?^\}\n", "\n".join(blocks(TUTORIAL, "bash")), re.MULTILINE | re.DOTALL)
    script = f"curl() {{ echo '{answer}'; }}\n" + "".join(functions) + call
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"{message}: {answer}\n"


def example_images() -> dict[str, Any]:
    """Forty images of two classes, and what the examples call them."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(40) % 2
    images = torch.randint(0, 60, (40, 1, 28, 28), dtype=torch.uint8, generator=generator)
    images[labels == 1, :, 10:18] += 150
    names = [("zero", "one")[label] for label in labels.tolist()]
    return {"images": images, "labels": labels, "names": names, "new_images": images[:4]}


def test_the_python_example_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = blocks(README, "python")
    monkeypatch.chdir(tmp_path)
    names = example_images()
    exec(compile(code, str(README), "exec"), names)
    assert [answer.label for answer in names["answers"]] == ["zero", "one", "zero", "one"]
    assert (tmp_path / "model" / "manifest.json").exists()


def test_the_python_guide_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = example_images()
    exec(compile("\n".join(blocks(GUIDE, "python")), str(GUIDE), "exec"), names)
    assert names["logits"].shape == (4, 2)
    assert torch.equal(names["same"].observe(names["new_images"]).logits("zero-one"), names["logits"])
    assert names["picture"].startswith(b"\x89PNG")
    assert [set(report.classes) for report in names["reports"]] == [{"zero", "one"}]


def commands(text: str) -> tuple[set[str], list[str]]:
    """The languages of a document's fenced blocks, and its command lines outside of them."""
    languages = set(re.findall(r"^```(.*)\n(?:.*\n)*?^```$", text, re.MULTILINE))
    prose = re.sub(r"^```.*\n(?:.*\n)*?^```$", "", text, flags=re.MULTILINE)
    indented = [line.strip() for line in re.findall(r"^ {4}(\S.*)$", prose, re.MULTILINE)]
    inline = [span for span in re.findall(r"`([^`]+)`", prose) if re.match(PROGRAMS, span)]
    return languages, indented + inline


@pytest.mark.parametrize("document", [README, TUTORIAL], ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_is_run_by_something(document: Path) -> None:
    languages, lines = commands(document.read_text())
    assert languages <= SESSIONS
    assert lines
    assert [line for line in lines if line not in RUN_BY] == []


@pytest.mark.parametrize("line", RUN_BY)
def test_what_runs_a_command_does(line: str) -> None:
    file, part = RUN_BY[line]
    assert part in (ROOT / file).read_text()


def test_a_command_that_nothing_runs_would_be_found() -> None:
    text = "Do\n\n    make tea\n\nor `make coffee` and `a name`:\n\n```sh\nmake cake\n```\n"
    assert commands(text) == ({"sh"}, ["make tea", "make coffee"])


def test_the_readme_is_short() -> None:
    assert len(README.read_text().splitlines()) <= 130
