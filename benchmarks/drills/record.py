"""Options of all drills, and the record of a drill's figures on screen and in a results file."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.harness.evaluation import provenance
from benchmarks.harness.results import append


def parser(drill: str, description: str) -> argparse.ArgumentParser:
    """A parser with the options of every drill, to which a drill adds its own."""
    options = argparse.ArgumentParser(prog=f"python -m benchmarks {drill}", description=description)
    options.add_argument("--seed", type=int, default=0, help="of all that is random in the drill")
    options.add_argument("--out", type=Path, help="append one JSON line")
    return options


def record(drill: str, figures: Mapping[str, Any], out: Path | None, threads: int = 1) -> None:
    """Print the figures, one a line; append them to `out` with the command, the commit and the machine.

    Parameters
    ----------
    drill
        Name of the module, such as `kills`.
    figures
        JSON values by name.
    """
    width = max(map(len, figures), default=0) + 2
    for name, value in figures.items():
        print(f"{name:{width}}{value}")
    if out is not None:
        append(out, {"drill": drill, **figures, **provenance(threads)})
