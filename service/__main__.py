"""Entry point of `python -m service`, which is the program `engram`."""

from __future__ import annotations

import gc
import sys

from service.lifecycle.tuning import restart_tuned

SERVERS = ("serve", "service")
"""Commands that are begun again with another environment; before anything else is imported, which costs time."""


def main() -> None:
    """Entry point of the console script."""
    if sys.argv[1:2] and sys.argv[1] in SERVERS:
        restart_tuned()
        # Looking for garbage again and again takes a quarter of the time that all imports take, and finds next to none.
        # `engram.runtime.set_aside_imports` begins with it.
        gc.disable()
    from service.cli import main as program

    program.main()


if __name__ == "__main__":
    main()
