"""Tests of HEAD, which is answered wherever GET is."""

from __future__ import annotations

import pytest

from service.app import create_app
from service.settings import ServiceSettings
from testing.data.digits import QUICK, archive
from testing.data.models import MODEL
from testing.servers.service import Service

V1 = f"/v1/models/{MODEL}"
PATHS = [
    *("/v1/models", V1, f"{V1}/tasks", f"{V1}/tasks/low", f"{V1}/novelty", f"{V1}/versions", f"{V1}/versions/1"),
    *(f"{V1}/versions/1/certificate", "/v1/jobs", "/livez", "/readyz", "/metrics", "/docs", "/openapi.json"),
    *("/docs/swagger-ui.js", "/v1/models/none", "/v1/jobs/none", "/v1/models?limit=0", "/v1/models?odd=1", "/nowhere"),
]
VARYING = {"x-request-id", "content-length", "date"}


@pytest.mark.parametrize("path", PATHS)
def test_the_same_headers_and_no_body(reader: Service, path: str) -> None:
    got = reader.client.get(path)
    asked = reader.client.head(path)
    assert (asked.status_code, asked.content) == (got.status_code, b"")
    assert got.content
    assert asked.headers.keys() == got.headers.keys()
    for name in got.headers.keys() - VARYING:
        assert asked.headers[name] == got.headers[name], name
    if path != "/metrics":  # whose numbers grow
        assert asked.headers["Content-Length"] == got.headers["Content-Length"]
    # The connection is good for more.
    assert reader.client.get("/livez").json() == {"status": "alive"}


def test_an_event_stream_is_not_begun(service: Service) -> None:
    files = [("name", (None, "high")), ("options", (None, str(QUICK).replace("'", '"'))), ("data", archive((8, 9), 4))]
    job = service.client.post(f"{V1}/tasks", files=files).json()["job"]["id"]  # type: ignore[arg-type]  # mixed parts
    asked = service.client.head(f"/v1/jobs/{job}/events")
    assert (asked.status_code, asked.content) == (200, b"")
    assert asked.headers["Content-Type"].startswith("text/event-stream")
    assert service.runtime.streams.open == 0


def test_what_takes_no_get_takes_no_head(reader: Service) -> None:
    refused = reader.client.head(f"{V1}/predict")
    assert (refused.status_code, refused.headers["Allow"]) == (405, "POST")
    assert reader.client.put(V1).headers["Allow"] == "DELETE, GET, HEAD, PATCH"


def test_the_document_has_get_alone(settings: ServiceSettings) -> None:
    for path, operations in create_app(settings).openapi()["paths"].items():
        assert "head" not in operations, path
        for method, operation in operations.items():
            assert operation["operationId"].endswith(f"_{method}")
