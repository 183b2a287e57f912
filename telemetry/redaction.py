"""Masking of credentials in text that is logged or shown."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

MASK = "***"

_USER = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)[^\s/?#'\"<>]*@")
"""Everything between `scheme://` and the last `@` before the path, since a user name alone can be a token."""
_QUERY = re.compile(
    r"([?&;][\w.-]*(?:password|passwd|secret|token|signature|credential|api[-_]?key|access[-_]?key)[\w.-]*=)[^&;\s'\"#]+",
    re.IGNORECASE,
)
_FIELD = re.compile(
    r"((?:password|passwd|secret|session[-_]token|api[-_]?key|access[-_]?key(?:[-_]id)?)[\w-]*['\"]?\s*[=:]\s*['\"]?)"
    r"(?!\*\*\*)[^\s'\"&,;)}\]]+",
    re.IGNORECASE,
)
_AUTHORIZATION = re.compile(r"(\bbearer\s+|\bauthorization['\"]?\s*[=:]\s*['\"]?(?:\w+\s+)?)[^\s'\",;]+", re.IGNORECASE)
_KEY = re.compile(r"\b(engram_[0-9a-f]{16})_[\w-]{20,}")
"""An API key of the service, whose id is not secret."""
_SECRETS = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "OTEL_EXPORTER_OTLP_HEADERS")
_SHORTEST_SECRET = 6


def redact(text: str, secrets: Collection[str] = ()) -> str:
    """`text` without the credentials of URLs, signed queries, `key=value` pairs and `Authorization` headers.

    Parameters
    ----------
    secrets
        Texts that are masked wherever they occur (`known_secrets`).
    """
    for secret in secrets:
        text = text.replace(secret, MASK)
    if "engram_" in text:
        text = _KEY.sub(rf"\1_{MASK}", text)
    if "://" in text:
        text = _USER.sub(rf"\1{MASK}@", text)
    if "=" in text or ":" in text:
        text = _QUERY.sub(rf"\1{MASK}", text)
        text = _AUTHORIZATION.sub(rf"\1{MASK}", text)
        text = _FIELD.sub(rf"\1{MASK}", text)
    elif "earer " in text:
        text = _AUTHORIZATION.sub(rf"\1{MASK}", text)
    return text


def known_secrets(environment: Mapping[str, str]) -> tuple[str, ...]:
    """The secrets in the standard environment variables."""
    return tuple(value for name in _SECRETS if is_long_enough(value := environment.get(name, "")))


def is_long_enough(secret: str) -> bool:
    """Whether a secret can be masked wherever it occurs; a short one would mask mere words."""
    return len(secret) >= _SHORTEST_SECRET
