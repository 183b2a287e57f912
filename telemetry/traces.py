"""OpenTelemetry tracing, configured by its standard environment variables only.

Without `OTEL_EXPORTER_OTLP_ENDPOINT` (or `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`, or `OTEL_TRACES_EXPORTER=otlp`) no span
is recorded, and the SDK is not even imported. Spans hold names, numbers and classes of errors, never their messages.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.semconv.attributes.url_attributes import URL_QUERY
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode
from opentelemetry.util.types import Attributes

from telemetry.redaction import redact

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor

log = logging.getLogger("engram.traces")

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_PROTOCOL = "http/protobuf"

_tracer = trace.get_tracer("engram", version("engram-vision"))


def wanted(environment: Mapping[str, str]) -> bool:
    """Whether the standard variables request that spans are exported."""
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    exporter = environment.get("OTEL_TRACES_EXPORTER")
    if exporter is None:
        return any(environment.get(name) for name in _ENDPOINTS)
    return "otlp" in (one.strip() for one in exporter.split(","))


def configure(service: str) -> bool:
    """Export this process's spans over OTLP if the environment requests it; returns whether it does.

    Parameters
    ----------
    service
        The `service.name`, unless `OTEL_SERVICE_NAME` or `OTEL_RESOURCE_ATTRIBUTES` sets it.
    """
    if not wanted(os.environ):
        return False
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    protocol = next((os.environ[name] for name in _PROTOCOLS if os.environ.get(name)), _PROTOCOL)
    if protocol != _PROTOCOL:
        log.warning("spans are sent as %s; %s is not spoken here", _PROTOCOL, protocol)
    own = {"service.version": version("engram-vision"), "service.instance.id": f"{socket.gethostname()}:{os.getpid()}"}
    attributes = Resource.create().attributes
    named = not str(attributes["service.name"]).startswith("unknown_service")
    resource = Resource.create({**own, **({} if named else {"service.name": service})})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(_without_secrets())
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    return True


def _without_secrets() -> SpanProcessor:
    from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor

    class WithoutSecrets(SpanProcessor):
        """Processor that redacts the query of the web framework's spans, which may hold signatures and tokens."""

        def on_start(self, span: ReadableSpan, parent_context: Context | None = None) -> None:
            query = (span.attributes or {}).get(URL_QUERY)
            if isinstance(span, Span) and isinstance(query, str):
                span.set_attribute(URL_QUERY, redact(f"?{query}")[1:])

    return WithoutSecrets()


def shutdown(seconds: float = 2.0) -> None:
    """Export the remaining spans, for `seconds` at most: a collector that does not answer must not block the exit."""
    end = getattr(trace.get_tracer_provider(), "shutdown", None)
    if end is not None:
        thread = threading.Thread(target=end, name="last-spans", daemon=True)
        thread.start()
        thread.join(seconds)


@contextmanager
def span(
    name: str,
    *,
    kind: SpanKind = SpanKind.INTERNAL,
    link: Link | None = None,
    attributes: Attributes = None,
) -> Iterator[Span]:
    """Context in which a new span is the current one.

    An exception that leaves the block marks the span as failed and is recorded by its class.
    """
    with _tracer.start_as_current_span(
        name,
        kind=kind,
        links=None if link is None else [link],
        attributes=attributes,
        record_exception=False,
        set_status_on_exception=False,
    ) as current:
        try:
            yield current
        except Exception as error:
            failed(current, error)
            raise


def child(name: str, attributes: Attributes = None) -> AbstractContextManager[Span | None]:
    """As `span` where the current span is recorded; otherwise a block in which nothing is, which costs nothing."""
    return span(name, attributes=attributes) if recording() else nullcontext()


def recording() -> bool:
    """Whether the current span is recorded."""
    return trace.get_current_span().is_recording()


def begin(name: str, attributes: Attributes = None) -> Span:
    """A child of the current span that does not become the current one; the caller must end it."""
    return _tracer.start_span(name, attributes=attributes)


def past(name: str, start: int, end: int, attributes: Attributes = None) -> None:
    """Record a child of the current span that is over already; times are nanoseconds since 1970."""
    if recording():
        _tracer.start_span(name, start_time=start, attributes=attributes).end(end)


def failed(span: Span, error: BaseException | str) -> None:
    """Mark a span as failed, with the class of its error."""
    span.set_attribute("error.type", error if isinstance(error, str) else type(error).__name__)
    span.set_status(Status(StatusCode.ERROR))


def carrier() -> dict[str, str]:
    """The context of the current span as headers (`traceparent` and the like), to be stored with its effects."""
    headers: dict[str, str] = {}
    propagate.inject(headers)
    return headers


def context_of(headers: Mapping[str, Any]) -> Context | None:
    """The context in the headers of a request or record; None without `traceparent`."""
    return propagate.extract(headers) if "traceparent" in headers else None


def link_to(headers: Mapping[str, Any]) -> Link | None:
    """A link to the span in the headers; None without a valid one."""
    with suppress(TypeError, ValueError):  # the headers of a record are not trusted
        context = trace.get_current_span(context_of(headers)).get_span_context() if "traceparent" in headers else None
        return Link(context) if context is not None and context.is_valid else None
    return None
