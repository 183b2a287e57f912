"""The base of everything that is validated once and never changed."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """A validated value that never changes and knows no unknown field."""

    model_config = ConfigDict(frozen=True, extra="forbid")
