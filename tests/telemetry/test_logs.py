"""Tests of structured logging."""

from __future__ import annotations

import io
import json
import logging
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from telemetry import logs
from vault.settings import LogSettings


@pytest.fixture
def stream(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """The stream of the log; the logging configuration is restored afterwards."""
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    hooks = threading.excepthook
    monkeypatch.setattr("sys.excepthook", None)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI")
    yield io.StringIO()
    root.handlers[:] = before
    root.setLevel(level)
    logging.captureWarnings(False)
    threading.excepthook = hooks
    logs.begin()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_json_with_what_was_bound_and_added(stream: io.StringIO) -> None:
    logs.configure(stream=stream)
    logs.begin(request_id="abc")
    with logs.bound(job_id="01", attempt=2):
        logging.getLogger("engram.worker").info("learning %s", "low", extra={"phase": "training", "unheard_of": 1})
    logging.getLogger("another.library").debug("not shown")
    logging.getLogger("another.library").warning("two\nlines")
    first, second = lines(stream)
    timestamp = first.pop("timestamp")
    assert timestamp.endswith("Z")
    assert first == {
        "level": "info",
        "logger": "engram.worker",
        "message": "learning low",
        "request_id": "abc",
        "job_id": "01",
        "attempt": 2,
        "phase": "training",
    }
    assert {name: second[name] for name in ("logger", "message", "request_id")} == {
        "logger": "another.library",
        "message": "two\nlines",
        "request_id": "abc",
    }
    assert "job_id" not in second


class Kept(logging.Handler):
    """Handler that keeps what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


FIELDS = {"status": 200, "route": "/v1/models/{model}", "model": "key=token=abc", "caller": "\ud800", "version": 2**70}


def test_a_line_without_a_record_is_the_line_of_one(stream: io.StringIO) -> None:
    logs.configure(stream=stream)
    logs.begin(request_id="api_key=hidden-1", version=3)
    log, message = logging.getLogger("engram.service.requests"), "GET 100% password=hidden-2 wJalrXUtnFEMI"
    for fields in (FIELDS, {"model": "digits"}, {}):
        logs.write(log, logging.WARNING, message, fields)
        log.warning(message, extra=fields)
        direct, usual = stream.getvalue().splitlines()[-2:]
        at = direct.index('"level"')
        assert direct[at:] == usual[at:]
        assert "hidden" not in direct
        assert "wJalr" not in direct
        assert len(json.loads(direct)["timestamp"]) == len("2026-01-31T10:20:30.123456Z")


def test_lines_go_wherever_records_go(stream: io.StringIO) -> None:
    logs.configure("INFO", stream=stream)
    log, parent = logging.getLogger("engram.service.requests"), logging.getLogger("engram.service")
    logs.write(log, logging.DEBUG, "too fine", {})
    assert not lines(stream)
    for listening in (logging.getLogger(), parent):
        kept = Kept()
        listening.addHandler(kept)
        try:
            logs.write(log, logging.INFO, "for two", {"status": 200})
        finally:
            listening.removeHandler(kept)
        (record,) = kept.records
        assert (record.getMessage(), vars(record)["status"]) == ("for two", 200)
    (handler,) = logging.getLogger().handlers
    handler.addFilter(lambda record: record.getMessage() != "filtered")
    for message in ("filtered", "not filtered"):
        logs.write(log, logging.INFO, message, {})
    handler.setLevel(logging.ERROR)
    logs.write(log, logging.INFO, "under the handler's level", {})
    assert [line["message"] for line in lines(stream)] == ["for two", "for two", "not filtered"]


def test_a_stream_that_is_gone_stops_nobody(stream: io.StringIO, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(stream=stream)
    stream.close()
    logs.write(logging.getLogger("engram.service.requests"), logging.INFO, "unheard", {"status": 200})
    assert "I/O operation on closed file" in capsys.readouterr().err


def test_another_thread_begins_with_nothing_bound(stream: io.StringIO) -> None:
    logs.configure(stream=stream)
    logs.begin(request_id="abc")
    thread = threading.Thread(target=logging.getLogger("engram.vault").warning, args=("lost",))
    thread.start()
    thread.join()
    assert "request_id" not in lines(stream)[0]


def test_no_credential_is_written_whichever_way_it_comes(stream: io.StringIO) -> None:
    logs.configure(stream=stream)
    log = logging.getLogger("engram.service")
    try:
        raise ConnectionError("redis://:hunter22@host is gone")
    except ConnectionError:
        log.exception("cannot reach %s", "redis://:hunter22@host", extra={"model": "https://hunter22@host"})
    log.info("signed with wJalrXUtnFEMI")
    with warnings.catch_warnings(action="always"):
        logging.captureWarnings(False)
        logging.captureWarnings(True)
        warnings.warn("redis://:hunter22@host is deprecated", stacklevel=1)
        logging.captureWarnings(False)
    thread = threading.Thread(target=lambda: int("redis://:hunter22@host"))
    thread.start()
    thread.join()
    written = lines(stream)
    assert len(written) == 4
    assert "ConnectionError" in written[0]["exception"]
    assert (written[2]["logger"], written[3]["level"]) == ("py.warnings", "critical")
    assert "hunter22" not in stream.getvalue()
    assert "wJalrXUtnFEMI" not in stream.getvalue()


def test_lines_for_people_cannot_be_forged(stream: io.StringIO) -> None:
    logs.configure(format="console", stream=stream)
    logging.getLogger("engram.service").info("GET /\r\n\x1b[2Jengram is fine", extra={"route": "a\nb"})
    assert len(stream.getvalue().splitlines()) == 1
    assert "\x1b" not in stream.getvalue()
    assert "GET /" in stream.getvalue()


def test_the_settings_are_those_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (LogSettings().log_level, LogSettings().log_format) == ("INFO", "auto")
    monkeypatch.setenv("ENGRAM_LOG_LEVEL", "debug")
    monkeypatch.setenv("ENGRAM_LOG_FORMAT", "json")
    assert (LogSettings().log_level, LogSettings().log_format) == ("DEBUG", "json")
    monkeypatch.setenv("ENGRAM_LOG_LEVEL", "loud")
    with pytest.raises(ValueError, match="log_level"):
        LogSettings()
