"""Structured logging: one JSON object a line, with the ids of the current request or job.

On a terminal lines are plain text. Lines of libraries get the same format. Fields that a request or a job binds
(`bind`, `bound`) are in all lines written on its behalf; further fields of one line are passed as `extra={...}` of the
standard library's calls.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import threading
import time
from collections.abc import Collection, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

import orjson
from opentelemetry import trace

from telemetry.redaction import is_long_enough, known_secrets, redact

LogFormat = Literal["auto", "console", "json"]
LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]

FIELDS: Mapping[str, str] = {
    "timestamp": "when, RFC 3339 in UTC with microseconds",
    "level": "`debug`, `info`, `warning`, `error` or `critical`",
    "logger": "what wrote it: `engram.service`, `engram.worker`, `engram.vault`, or a library",
    "message": "one sentence",
    "exception": "the traceback, where there is one",
    "request_id": "of the request that is answered; of a job, that of its submission",
    "job_id": "of the job that is submitted, asked for or worked on",
    "model": "name of the model it is about",
    "task": "name of the task that is learned",
    "attempt": "number of the job's attempt, which is its fencing token",
    "phase": "of the job",
    "version": "of the model, that answered or was published",
    "trace_id": "of the OpenTelemetry trace, where spans are recorded",
    "span_id": "of the span in it",
    "method": "of the request",
    "route": "template of the route that answered, `unmatched` where there is none",
    "status": "of the answer",
    "code": "of the error: the one that the client or the job's record got",
    "duration_seconds": "what it took; of a request, from its first byte to the last byte of the answer",
    "request_bytes": "of the request's body, as far as it was read",
    "response_bytes": "of the answer's body",
    "caller": "id of the key that asked, where keys are required; never the key",
    "outcome": "how a job or an attempt ended",
}
"""Every field that a line may have; other fields, which libraries add, are left out."""

_WITHOUT_SECRETS = frozenset({"timestamp", "level", "logger", "method", "route", "trace_id", "span_id"})
"""Fields whose values this program generates itself, so that they need no redaction."""
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_FIRST = ("timestamp", "level", "logger", "message", "exception")
"""The fields that a line begins with."""
_EXTRA = FIELDS.keys() - {*_FIRST, "trace_id", "span_id"}
_FURTHER = tuple(name for name in FIELDS if name not in _FIRST)


def configure(
    level: LogLevel = "INFO",
    format: LogFormat = "auto",
    stream: TextIO | None = None,
    secrets: Collection[str] = (),
) -> None:
    """Send log lines, warnings and uncaught exceptions of this process to `stream`, by default standard error.

    Parameters
    ----------
    format
        `auto` is `console` on a terminal and `json` elsewhere.
    secrets
        Texts that are masked beside those of the standard environment variables.
    """
    stream = stream or sys.stderr
    readable = format == "console" or (format == "auto" and stream.isatty())
    masked = (*known_secrets(os.environ), *filter(is_long_enough, secrets))
    handler = logging.StreamHandler(stream) if readable else _JsonHandler(stream, masked)
    if readable:
        handler.setFormatter(_plain_lines(stream.isatty(), masked))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    logging.captureWarnings(True)
    # Which no line has, and asking for which takes a call of the system for each.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    sys.excepthook = _on_exception
    threading.excepthook = lambda args: _on_exception(args.exc_type, args.exc_value, args.exc_traceback)


_NOTHING: Mapping[str, Any] = {}

_bound: ContextVar[Mapping[str, Any]] = ContextVar("engram_log_fields")
"""The bound fields; a mapping that is never changed."""


def bind(**fields: Any) -> None:
    """Add these `FIELDS` to every further line of this request or thread."""
    _bound.set({**_bound.get({}), **fields})


def begin(**fields: Any) -> None:
    """Replace the bound fields by these."""
    _bound.set(fields)


@contextmanager
def bound(**fields: Any) -> Iterator[None]:
    """A block, with these `FIELDS` in every line within."""
    token = _bound.set({**_bound.get({}), **fields})
    try:
        yield
    finally:
        _bound.reset(token)


def value(field: str) -> str | None:
    """The value that is bound to a field; None without one."""
    return _bound.get({}).get(field)


def write(logger: logging.Logger, level: int, message: str, fields: Mapping[str, Any]) -> None:
    """Log a message with these `FIELDS`, as the logger's own methods do, in about half their time.

    No record is made of it where nothing but this module's handler of JSON would see one.
    """
    if not logger.isEnabledFor(level):
        return
    handler = _alone(logger, level)
    if handler is None:
        # Nobody needs to know where in the code the line comes from, and finding out takes long.
        logger.handle(logger.makeRecord(logger.name, level, "", 0, message, (), None, extra=fields))
    else:
        handler.write(logger.name, level, message, fields)


def _alone(logger: logging.Logger, level: int) -> _JsonHandler | None:
    """The handler of JSON, where it takes all that the logger is told at this level, and nothing else takes any."""
    above: logging.Logger | None = logger
    while above is not None and above.parent is not None:
        if above.handlers or not above.propagate:
            return None
        above = above.parent
    handlers = [] if above is None else above.handlers
    if logger.filters or len(handlers) != 1 or not isinstance(found := handlers[0], _JsonHandler):
        return None
    return None if found.filters or found.level > level else found


class _JsonHandler(logging.StreamHandler[TextIO]):
    """Handler that writes one JSON object a line, with `FIELDS` in their order."""

    def __init__(self, stream: TextIO, secrets: Collection[str]) -> None:
        super().__init__(stream)
        self._secrets = secrets

    def format(self, record: logging.LogRecord) -> str:
        exception = logging.Formatter().formatException(record.exc_info) if record.exc_info else None
        given = vars(record)
        own = {name: given[name] for name in _EXTRA.intersection(given)}
        return self._line(record.created, record.levelname, record.name, record.getMessage(), own, exception)

    def write(self, logger: str, level: int, message: str, fields: Mapping[str, Any]) -> None:
        """Write a line of which no record was made."""
        try:
            line = self._line(time.time(), logging.getLevelName(level), logger, message, fields)
            with self.lock:  # type: ignore[union-attr]  # a handler has one
                self.stream.write(line + self.terminator)
                self.stream.flush()
        except Exception:  # as of a record
            self.handleError(logging.LogRecord(logger, level, "", 0, message, (), None))

    def _line(
        self,
        moment: float,
        level: str,
        logger: str,
        message: str,
        own: Mapping[str, Any],
        exception: str | None = None,
    ) -> str:
        secrets = self._secrets
        line: dict[str, Any] = {
            "timestamp": f"{datetime.fromtimestamp(moment, UTC).isoformat(timespec='microseconds')[:-6]}Z",
            "level": level.lower(),
            "logger": logger,
            "message": redact(message, secrets),
        }
        if exception is not None:
            line["exception"] = redact(exception, secrets)
        found = {**_trace(), **_bound.get(_NOTHING), **own}
        for name in _FURTHER:
            if name in found:
                value = found[name]
                secret = isinstance(value, str) and name not in _WITHOUT_SECRETS
                line[name] = redact(value, secrets) if secret else value
        try:
            return orjson.dumps(line, default=str).decode()
        except TypeError:  # half a character, or a number of more than 64 bits
            return json.dumps(line, default=str)


def _trace() -> Mapping[str, Any]:
    """The ids of the current span, where spans are recorded."""
    span = trace.get_current_span()
    if not span.is_recording():
        return _NOTHING
    context = span.get_span_context()
    return {"trace_id": trace.format_trace_id(context.trace_id), "span_id": trace.format_span_id(context.span_id)}


def _plain_lines(colours: bool, secrets: Collection[str]) -> logging.Formatter:
    """Formatter of lines for a person at a terminal."""
    import structlog  # which takes long, and which JSON does without

    def redact_fields(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        for name, text in event.items():
            if name not in _WITHOUT_SECRETS and isinstance(text, str):
                event[name] = redact(text, secrets)
        return event

    def add_bound(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        return {**_bound.get({}), **event}

    def add_trace(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        return {**event, **_trace()}

    # Plain tracebacks, since rich ones show local variables.
    renderer = structlog.dev.ConsoleRenderer(colors=colours, exception_formatter=structlog.dev.plain_traceback)
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[
            add_bound,
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.stdlib.ExtraAdder(allow=_EXTRA),
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            add_trace,
            structlog.processors.format_exc_info,
        ],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, redact_fields, _printable, renderer],
    )


def _printable(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Replace control characters, so that a client's text cannot control the terminal."""
    event["event"] = _CONTROL.sub("\ufffd", event["event"]).replace("\n", " ")
    return event


def _on_exception(kind: type[BaseException], error: BaseException | None, trace: Any) -> None:
    if issubclass(kind, KeyboardInterrupt) or error is None:
        return
    logging.getLogger("engram").critical("nobody caught this", exc_info=(kind, error, trace))
