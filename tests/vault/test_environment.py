"""Tests of messages on invalid settings."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError

import worker.__main__
from service.cli import main
from service.settings import ServiceSettings
from vault.settings import explain_settings_errors


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("ENGRAM_QUEUE_IMAGES", "hunter22", "ENGRAM_QUEUE_IMAGES cannot be used: Input should be a valid integer"),
        ("ENGRAM_KEY_SECONDS", "-7", "ENGRAM_KEY_SECONDS cannot be used: Input should be greater than 0"),
        ("ENGRAM_HOSTS", "hunter22", "ENGRAM_HOSTS cannot be used: it is not JSON."),
        ("ENGRAM_HOSTS", "[-7]", "ENGRAM_HOSTS at 0 cannot be used: Input should be a valid string."),
    ],
)
def test_a_line_without_the_value(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, value: str, line: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as end, explain_settings_errors():
        ServiceSettings()
    said = capsys.readouterr().err
    assert end.value.code == 78
    assert said.startswith(line)
    assert len(said.splitlines()) == 1
    assert "hunter22" not in said
    assert "-7" not in said


def test_every_setting_that_does_not_fit(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("ENGRAM_QUEUE_IMAGES", "0")
    monkeypatch.setenv("ENGRAM_KEYS", "maybe")
    with pytest.raises(SystemExit), explain_settings_errors():
        ServiceSettings()
    assert {line.split()[0] for line in capsys.readouterr().err.splitlines()} == {"ENGRAM_QUEUE_IMAGES", "ENGRAM_KEYS"}


def test_what_else_does_not_fit_is_not_taken_for_a_setting() -> None:
    class Other(BaseModel):
        number: int

    with pytest.raises(ValidationError), explain_settings_errors():
        Other.model_validate({"number": "x"})


def test_both_programs_end_with_the_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "store").mkdir()
    monkeypatch.setenv("ENGRAM_JOB_KEEP_DAYS", "many")
    monkeypatch.setattr(sys, "argv", ["engram", "vault", "sweep", "--data", str(tmp_path)])
    for program in (main.main, worker.__main__.main):
        with pytest.raises(SystemExit) as end:
            program()
        assert end.value.code == 78
        assert capsys.readouterr().err.startswith("ENGRAM_JOB_KEEP_DAYS cannot be used: ")
