"""Tests of redaction."""

from __future__ import annotations

import pytest

from telemetry.redaction import known_secrets, redact

HIDDEN = "S3cr3t/+x"


@pytest.mark.parametrize(
    "text",
    [
        "redis://:hunter22@host:6379/0 is gone",
        "redis://engram:hunter22@host",
        "rediss://:hun@ter22@host/1",
        "cannot reach https://hunter22@example.org/otlp?x=1",
        "GET https://b.s3.amazonaws.com/k?X-Amz-Credential=hunter22%2F2026&X-Amz-Signature=hunter22&x=1",
        "s3://bucket/key?token=hunter22",
        "AWS_SECRET_ACCESS_KEY=hunter22",
        "{'aws_secret_access_key': 'hunter22', 'region': 'us-east-1'}",
        '{"password": "hunter22"}',
        "api-key: hunter22",
        "Authorization: Bearer hunter22",
        "authorization=Basic hunter22==",
        "sent with bearer hunter22",
        "no such model: engram_00aa00aa00aa00aa_hunter2hunter2hunter2hunter2",
    ],
)
def test_credentials_are_masked(text: str) -> None:
    cleaned = redact(text)
    assert "hun" not in cleaned
    assert "22" not in cleaned
    assert "***" in cleaned
    assert redact(cleaned) == cleaned


@pytest.mark.parametrize(
    "text",
    [
        "model digits answers with version 3",
        "the lease of digits is lost; attempt 5, token 5",
        "redis://127.0.0.1:6379/0",
        "s3://bucket/prefix/task@2.zip",
        "unix:///run/redis.sock?db=0",
        "http://localhost:8000/v1/models/digits/predict?top_k=3&task=low",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text) == text


def test_of_a_key_its_id_stays() -> None:
    token = "engram_0123456789abcdef_" + "Ab3-_" * 8
    assert redact(f"{token} is refused") == "engram_0123456789abcdef_*** is refused"


def test_what_the_process_was_given_is_masked_wherever_it_stands() -> None:
    secrets = known_secrets({"AWS_SECRET_ACCESS_KEY": HIDDEN, "AWS_SESSION_TOKEN": "a", "HOME": "/home/engram"})
    assert secrets == (HIDDEN,)
    assert redact(f"signing with {HIDDEN} failed", secrets) == "signing with *** failed"
