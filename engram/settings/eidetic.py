"""Settings of the default method."""

from __future__ import annotations

from engram.settings.base import MethodSettings


class EideticSettings(MethodSettings):
    """EideticNet on blocks: what can be chosen about learning is chosen for each task, in its options."""
