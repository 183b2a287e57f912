"""Structured logging: one JSON object a line, with the ids of the current request or job.

On a terminal lines are plain text. Lines of libraries get the same format. Fields that a request or a job binds
(`bind`, `bound`) are in all lines written on its behalf; further fields of one line are passed as `extra={...}` of the
standard library's calls.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
from collections.abc import Collection, Mapping, MutableMapping
from typing import Any, Literal, TextIO

import structlog
from opentelemetry import trace
from structlog.contextvars import bind_contextvars, bound_contextvars, clear_contextvars, get_contextvars

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
_EXTRA = FIELDS.keys() - {"timestamp", "level", "logger", "message", "exception", "trace_id", "span_id"}


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
    handler = logging.StreamHandler(stream)
    masked = (*known_secrets(os.environ), *filter(is_long_enough, secrets))
    handler.setFormatter(_formatter(readable, readable and stream.isatty(), masked))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    logging.captureWarnings(True)
    sys.excepthook = _on_exception
    threading.excepthook = lambda args: _on_exception(args.exc_type, args.exc_value, args.exc_traceback)


def bind(**fields: Any) -> None:
    """Add these `FIELDS` to every further line of this request or thread."""
    bind_contextvars(**fields)


def begin(**fields: Any) -> None:
    """Replace the bound fields by these."""
    clear_contextvars()
    bind_contextvars(**fields)


bound = bound_contextvars
"""`with bound(job_id=...):` adds these `FIELDS` to every line within."""


def value(field: str) -> str | None:
    """The value that is bound to a field; None without one."""
    return get_contextvars().get(field)


def _formatter(readable: bool, colours: bool, secrets: Collection[str]) -> logging.Formatter:
    def redact_fields(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        for name, text in event.items():
            if name not in _WITHOUT_SECRETS and isinstance(text, str):
                event[name] = redact(text, secrets)
        return event

    last: list[Any]
    if readable:
        # Plain tracebacks, since rich ones show local variables.
        traceback = structlog.dev.plain_traceback
        last = [_printable, structlog.dev.ConsoleRenderer(colors=colours, exception_formatter=traceback)]
    else:
        last = [_in_order, structlog.processors.JSONRenderer(ensure_ascii=False, default=str)]
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.stdlib.ExtraAdder(allow=_EXTRA),
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _add_trace,
            structlog.processors.format_exc_info,
        ],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, redact_fields, *last],
    )


def _add_trace(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    span = trace.get_current_span()
    if span.is_recording():
        context = span.get_span_context()
        event["trace_id"] = trace.format_trace_id(context.trace_id)
        event["span_id"] = trace.format_span_id(context.span_id)
    return event


def _in_order(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    event["message"] = event.pop("event")
    return {name: event[name] for name in FIELDS if name in event}


def _printable(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Replace control characters, so that a client's text cannot control the terminal."""
    event["event"] = _CONTROL.sub("\ufffd", event["event"]).replace("\n", " ")
    return event


def _on_exception(kind: type[BaseException], error: BaseException | None, trace: Any) -> None:
    if issubclass(kind, KeyboardInterrupt) or error is None:
        return
    logging.getLogger("engram").critical("nobody caught this", exc_info=(kind, error, trace))
