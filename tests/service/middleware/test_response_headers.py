"""Tests of the headers of every answer."""

from __future__ import annotations

import base64
import hashlib
import re

import httpx
import pytest

from testing.data.digits import png
from testing.data.models import MODEL
from testing.servers.service import Service
from tests.service.errors.test_problem_details import app_that_raises, ask

PNG = {"Content-Type": "image/png"}

REQUESTS = [
    ("GET", "/v1/models", 200),
    ("GET", f"/v1/models/{MODEL}", 200),
    ("GET", "/v1/models/none", 404),
    ("GET", "/nowhere", 404),
    ("PUT", "/v1/models", 405),
    ("POST", f"/v1/models/{MODEL}/predict", 200),
    ("POST", f"/v1/models/{MODEL}/explain", 200),
    ("GET", "/metrics", 200),
    ("GET", "/livez", 200),
    ("GET", "/openapi.json", 200),
]


def check(response: httpx.Response) -> None:
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Referrer-Policy"] == "no-referrer"
    assert response.headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert response.headers["Cache-Control"] == "no-store"
    assert "Access-Control-Allow-Origin" not in response.headers
    policy = response.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; ")
    assert "frame-ancestors 'none'" in policy


@pytest.mark.parametrize(("method", "path", "status"), REQUESTS)
def test_every_answer(reader: Service, method: str, path: str, status: int) -> None:
    content = png(0, 100) if method == "POST" else None
    response = reader.client.request(method, path, content=content, headers=PNG)
    assert response.status_code == status
    check(response)
    assert "script-src" not in response.headers["Content-Security-Policy"]


def test_what_nobody_foresaw_too() -> None:
    response = ask(app_that_raises(ZeroDivisionError("secret")))
    assert response.status_code == 500
    check(response)


def test_the_page_of_documentation_runs_its_own_scripts_only(reader: Service) -> None:
    response = reader.client.get("/docs")
    check(response)
    policy = response.headers["Content-Security-Policy"]
    scripts = re.search(r"script-src ([^;]*);", policy)
    assert scripts is not None
    allowed = scripts[1].split()
    assert "'unsafe-inline'" not in allowed
    inline = re.findall(r"<script>(.*?)</script>", response.text, re.DOTALL)
    assert inline
    for script in inline:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in allowed


def test_the_page_of_documentation_needs_no_other_host(reader: Service) -> None:
    response = reader.client.get("/docs")
    assert "//" not in response.headers["Content-Security-Policy"]
    assert "://" not in response.text
    sources = re.findall(r"<(?:script|link)[^>]*(?:src|href)=\"([^\"]*)\"", response.text)
    kinds = {"docs/swagger-ui.js": "text/javascript", "docs/swagger-ui.css": "text/css"}
    assert {source for source in sources if source != "data:,"} == kinds.keys()
    for source, kind in kinds.items():
        found = reader.client.get(f"/{source}")
        assert (found.status_code, found.headers["Content-Type"].split(";")[0]) == (200, kind)
        assert found.headers["X-Content-Type-Options"] == "nosniff"
        assert len(found.content) > 100_000
    assert re.search(r'PACKAGE_VERSION:"5\.\d+\.\d+"', reader.client.get("/docs/swagger-ui.js").text)
