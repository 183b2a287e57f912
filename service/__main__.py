"""Entry point of `python -m service`, which is the program `engram`."""

from __future__ import annotations

import sys

from service.lifecycle.tuning import restart_tuned

SERVERS = ("serve", "service")
"""Commands that are begun again with another environment; before anything else is imported, which costs time."""


def main() -> None:
    """Entry point of the console script."""
    if sys.argv[1:2] and sys.argv[1] in SERVERS:
        restart_tuned()
    from service.cli import main as program

    program.main()


if __name__ == "__main__":
    main()
