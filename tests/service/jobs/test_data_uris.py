"""Tests of the places that training data may be taken from."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from service.errors.exceptions import DataUriNotAllowed
from service.jobs.data_uris import allowed_uri, useless
from service.settings import ServiceSettings
from testing.data.digits import QUICK, archive
from testing.data.models import MODEL
from testing.servers.service import running


@pytest.fixture
def places(tmp_path: Path) -> Path:
    """`real/` with files, `link` to it, `my data/`, and a secret outside of both."""
    (tmp_path / "real" / "deep").mkdir(parents=True)
    (tmp_path / "my data").mkdir()
    (tmp_path / "100%").mkdir()
    for path in ("real/x.zip", "real/deep/x.zip", "real/a#b?.zip", "my data/x.zip", "100%/x.zip", "secret.zip"):
        (tmp_path / path).write_bytes(b"x")
    os.symlink(tmp_path / "real", tmp_path / "link")
    os.symlink(tmp_path / "secret.zip", tmp_path / "real" / "out.zip")
    os.symlink(tmp_path, tmp_path / "real" / "up")
    os.symlink("x.zip", tmp_path / "real" / "inside.zip")
    return tmp_path


@pytest.mark.parametrize(
    ("prefix", "uri", "path"),
    [
        ("file://{0}/real/", "file://{0}/real/x.zip", "real/x.zip"),
        ("file://{0}/real", "file://{0}/real/deep/x.zip", "real/deep/x.zip"),
        ("file://{0}/real//", "file://{0}/real//x.zip", "real/x.zip"),
        ("file://{0}/link/", "file://{0}/link/x.zip", "real/x.zip"),
        ("file://{0}/link", "file://{0}/real/x.zip", "real/x.zip"),
        ("file://{0}/real/", "file://{0}/link/x.zip", "real/x.zip"),
        ("file://{0}/link/deep/", "file://{0}/link/deep/x.zip", "real/deep/x.zip"),
        ("file://{0}/real/", "file://{0}/real/inside.zip", "real/x.zip"),
        ("file://{0}/my%20data/", "file://{0}/my%20data/x.zip", "my data/x.zip"),
        ("file://{0}/my data/", "file://{0}/my%20data/x.zip", "my data/x.zip"),
        ("file://{0}/my%20data/", "file://{0}/my data/x.zip", "my data/x.zip"),
        ("file://{0}/100%/", "file://{0}/100%25/x.zip", "100%/x.zip"),
        ("file://{0}/100%25/", "file://{0}/100%/x.zip", "100%/x.zip"),
        ("file://localhost{0}/real/", "file://{0}/real/x.zip", "real/x.zip"),
        ("file://{0}/real/", "file://localhost{0}/real/x.zip", "real/x.zip"),
        ("file:{0}/real/", "FILE:{0}/real/x.zip", "real/x.zip"),
        ("file://{0}/my%20data/../real/", "file://{0}/real/./x.zip", "real/x.zip"),
        ("file://{0}/real/", "file://{0}/real/deep/../x.zip", "real/x.zip"),
        ("file://{0}/real/", "file://{0}/real/a%23b%3F.zip", "real/a#b?.zip"),
        ("file://{0}/real/", "file://{0}/real/a#b?.zip", "real/a#b?.zip"),
        ("file:///", "file://{0}/secret.zip", "secret.zip"),
        ("file://{0}/real/", "file://{0}/real/none.zip", "real/none.zip"),
    ],
)
def test_what_is_below_a_prefix(places: Path, prefix: str, uri: str, path: str) -> None:
    assert allowed_uri(uri.format(places), (prefix.format(places),)) == f"file://{places.resolve() / path}"


@pytest.mark.parametrize("prefix", ["file://{0}/real/", "file://{0}/link/", "file://localhost{0}/link"])
@pytest.mark.parametrize(
    "uri",
    [
        "file://{0}/secret.zip",
        "file://{0}/real/../secret.zip",
        "file://{0}/link/../secret.zip",
        "file://{0}/link/%2e%2e/secret.zip",
        "file://{0}/real/%2e%2e%2fsecret.zip",
        "file://{0}/real/out.zip",
        "file://{0}/link/out.zip",
        "file://{0}/link/up/secret.zip",
        "file://{0}/real",
        "file://{0}/real/",
        "file://{0}/real-other/x.zip",
        "file://elsewhere{0}/real/x.zip",
        "file://{0}/real/x%00.zip",
        "file://{0}/real/%ff.zip",
        "file:real/x.zip",
        "{0}/real/x.zip",
        "http://localhost{0}/real/x.zip",
        "",
    ],
)
def test_what_is_not(places: Path, prefix: str, uri: str) -> None:
    with pytest.raises(DataUriNotAllowed):
        allowed_uri(uri.format(places), (prefix.format(places), "s3://bucket/open"))


def test_a_link_is_followed_when_it_is_asked_for(places: Path) -> None:
    prefixes = (f"file://{places}/link/",)
    uri = f"file://{places}/link/x.zip"
    assert allowed_uri(uri, prefixes) == f"file://{places.resolve()}/real/x.zip"
    (places / "link").unlink()
    os.symlink(places / "my data", places / "link")
    assert allowed_uri(uri, prefixes) == f"file://{places.resolve()}/my data/x.zip"
    with pytest.raises(DataUriNotAllowed):
        allowed_uri(f"file://{places}/real/x.zip", prefixes)


@pytest.mark.parametrize(
    ("prefix", "uri", "allowed"),
    [
        ("s3://bucket/open/", "s3://bucket/open/x.zip", True),
        ("s3://bucket/open", "s3://bucket/open/a/x.zip", True),
        ("s3://bucket", "s3://bucket/x.zip", True),
        ("s3://bucket/", "S3://bucket/x.zip", True),
        ("S3://bucket/open/", "s3://bucket/open/x.zip", True),
        ("s3://bucket/open", "s3://bucket/opener/x.zip", False),
        ("s3://bucket", "s3://bucket-2/x.zip", False),
        ("s3://bucket/open/", "s3://bucket/open", False),
        ("s3://bucket/open/", "s3://bucket/Open/x.zip", False),
        ("s3://bucket/open/", "s3://bucket/open/../x.zip", False),
        ("s3://bucket/open/", "s3://bucket/open/x.zip?versionId=1", False),
        ("s3://bucket/open/", "s3://bucket/open/x.zip#1", False),
        ("s3://bucket/open/", "s3:///open/x.zip", False),
        ("s3://", "s3://bucket/x.zip", False),
        ("s3://bucket/../open/", "s3://bucket/open/x.zip", False),
        ("s3://bucket/open/", "s3://bucket/open/", True),
        ("s3://bucket/open/", "s3://bucket/open/a/b/", True),
        ("s3://bucket/open/", "s3://bucket/", False),
        ("gs://bucket/open/", "GS://bucket/open/x.zip", True),
        ("gs://bucket/open/", "s3://bucket/open/x.zip", False),
        ("az://box", "az://box/a/", True),
    ],
)
def test_buckets(prefix: str, uri: str, allowed: bool) -> None:
    if allowed:
        assert allowed_uri(uri, (prefix,)) == uri[:2].lower() + uri[2:]
    else:
        with pytest.raises(DataUriNotAllowed):
            allowed_uri(uri, (prefix,))


def test_what_allows_nothing_is_told(places: Path) -> None:
    good = (
        f"file://{places}/link/",
        f"file://{places}/my%20data",
        "file:///",
        "s3://bucket",
        "gs://bucket/a/",
        "az://a/",
    )
    assert list(useless(good)) == []
    bad = {
        f"file://{places}/none/": "no such folder",
        f"file://{places}/secret.zip": "it is a file",
        "file://data/": "not absolute",
        "file:data/": "not absolute",
        "file:///%ff/": "cannot be decoded",
        "/data/": "none of s3://, gs://, az:// and file:///",
        "data": "none of",
        "ftp://bucket/": "none of",
        "": "none of",
        "s3://": "not SCHEME://bucket",
        "gs://bucket/a?b": "not SCHEME://bucket",
    }
    found = dict(useless(tuple(bad)))
    assert found.keys() == bad.keys()
    for prefix, reason in bad.items():
        assert reason in found[prefix]


def test_a_service_over_a_link(
    learned_settings: ServiceSettings, places: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (places / "my data" / "digits.zip").write_bytes(archive((8, 9), 4))
    os.symlink(places / "my data", places / "mount")
    prefixes = (f"file://{places}/mount/", f"file://{places}/gone/")
    with running(learned_settings.model_copy(update={"data_uri_prefixes": prefixes})) as service:
        (warning,) = (line.getMessage() for line in caplog.records if "ENGRAM_DATA_URI_PREFIXES" in line.getMessage())
        assert f"{places}/gone/ allows nothing at present: there is no such folder." in warning
        uri = f"file://{places}/mount/digits.zip"
        body = {"name": "high", "data": {"uri": uri}, "options": QUICK}
        accepted = service.client.post(f"/v1/models/{MODEL}/tasks", json=body)
        assert accepted.status_code == 202
        job = service.vault.jobs.get(accepted.json()["job"]["id"])
        assert job.data == f"file://{places.resolve()}/my data/digits.zip"
        refused = service.client.post(
            f"/v1/models/{MODEL}/tasks", json=body | {"data": {"uri": f"file://{places}/secret.zip"}}
        )
        assert (refused.status_code, refused.json()["code"]) == (403, "data_uri_not_allowed")
