"""JSON documents as bytes."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any


def encode(document: Mapping[str, Any]) -> str:
    """A JSON object as text; numbers that JSON does not know (infinities, NaN) become null."""
    return json.dumps(_finite(document), allow_nan=False, ensure_ascii=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
