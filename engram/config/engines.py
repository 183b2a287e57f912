"""Engines: the ways that answers are computed, each by its name and a number."""

from __future__ import annotations

from typing import Literal

EngineName = Literal["eager-1"]
"""A number is another engine: whatever changes a bit of what an engine computes gives it the next one."""

FIRST_ENGINE: EngineName = "eager-1"
"""PyTorch's own operations one by one, in float32; what is stored and names no engine was made with it."""
