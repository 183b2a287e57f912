"""JSON documents as bytes, sealed with a format version and a SHA-256."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

from vault.errors import Damaged, UnsupportedRecord

FORMAT = 9
"""Newest version of records. A reader refuses newer ones; a record without a seal is older than seals."""

FIRST_FORMAT = 1
"""Version of all records but those that an earlier release would misread, which passes over what it does not know."""

_SEAL = "seal"


def encode(document: Mapping[str, Any]) -> str:
    """A JSON object as text; numbers that JSON does not know (infinities, NaN) become null."""
    return json.dumps(_finite(document), allow_nan=False, ensure_ascii=False)


def seal(document: Mapping[str, Any], version: int = FIRST_FORMAT) -> bytes:
    """A JSON object as bytes, with a field `seal`: the format version, and a SHA-256 of everything else."""
    content = _finite(document)
    return encode({**content, _SEAL: {"format": version, "sha256": digest(content)}}).encode()


def unseal(path: str, data: bytes) -> dict[str, Any]:
    """The document that `seal` encoded; errors name `path`.

    Raises
    ------
    Damaged
        It is not JSON, no JSON object, or does not match its seal.
    UnsupportedRecord
        It was written by a later release.
    """
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Damaged(path, f"it is not JSON ({error})") from error
    if not isinstance(document, dict):
        raise Damaged(path, "it is not a JSON object")
    if _SEAL not in document:
        return document
    sealed = document.pop(_SEAL)
    version = sealed.get("format") if isinstance(sealed, dict) else None
    if not isinstance(version, int) or version < 1:
        raise Damaged(path, "its seal names no format")
    if version > FORMAT:
        raise UnsupportedRecord(path, f"it is of format {version}, and {FORMAT} is the newest known")
    if sealed.get("sha256") != digest(document):
        raise Damaged(path, "it is not what was sealed")
    return document


def digest(content: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical JSON: sorted keys, no spaces."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    # A lone surrogate, which JSON can escape and UTF-8 cannot encode, must not be an error of its own.
    return hashlib.sha256(canonical.encode(errors="surrogatepass")).hexdigest()


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
