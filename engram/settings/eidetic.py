"""Settings of the default method."""

from __future__ import annotations

from engram.settings.base import MethodSettings


class EideticSettings(MethodSettings):
    """EideticNet on blocks: how heads and recogniser work. How long to train, and what to prune, a task's options say.

    The parts can be left out one by one, so that what each is worth can be measured.
    """

    read_commons: bool = True
    """Whether a head also reads the commons, by a regression over the task's own images."""
