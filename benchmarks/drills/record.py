"""What a drill found: shown as a table, and kept as a line beside the other results."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.harness.evaluation import provenance
from benchmarks.harness.results import append


def parser(description: str) -> argparse.ArgumentParser:
    """The options of every drill; add the drill's own."""
    options = argparse.ArgumentParser(description=description)
    options.add_argument("--seed", type=int, default=0, help="of all that is random in the drill")
    options.add_argument("--out", type=Path, help="append one JSON line")
    return options


def record(drill: str, figures: Mapping[str, Any], out: Path | None, threads: int = 1) -> None:
    """Print the figures, one a line; to `out` they go with the command, the commit and the machine.

    Parameters
    ----------
    drill
        Name of the module, such as `kills`.
    figures
        Anything JSON can hold, by name.
    """
    width = max(map(len, figures), default=0) + 2
    for name, value in figures.items():
        print(f"{name:{width}}{value}")
    if out is not None:
        append(out, {"drill": drill, **figures, **provenance(threads)})
