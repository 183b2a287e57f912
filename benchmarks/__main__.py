"""Command line of all benchmarks: `python -m benchmarks SCENARIO ...`."""

from __future__ import annotations

import ast
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from benchmarks import sequences

SEQUENCES = {
    "split_mnist": "Split-MNIST: five tasks of two digits",
    "single_mnist": "Split-MNIST, one class a task: ten tasks of one digit",
    "permuted_mnist": "Permuted MNIST: ten tasks of ten digits, the pixels of each in another fixed order",
    "split_cifar10": "Split-CIFAR-10: five tasks of two classes, airplane and automobile first",
    "split_cifar10_lite0": "Split-CIFAR-10 over EfficientNet-Lite0, which has seen ImageNet, beside learned filters",
    "single_cifar10_lite0": "the same, one class a task: ten tasks of one class",
    "split_cifar100": "Split-CIFAR-100: ten tasks of ten random classes, the same for all seeds (RNF, section 4.3)",
    "rnf_cifar": "RNF's order: CIFAR-10, then five tasks of ten random classes of CIFAR-100 (its section 4.3)",
    "rnf_digits": "RNF's order where CIFAR-100 is not to be had: CIFAR-10, then five tasks of ten digits",
}
"""Task sequences, learned one task after another and evaluated on the test split."""

PROGRAMS = {
    "commons": "benchmarks.studies.commons",
    "device": "benchmarks.serving.device",
    "engines": "benchmarks.serving.engines.command",
    "evaluation": "benchmarks.studies.evaluation",
    "fuzzy_mnist": "benchmarks.studies.fuzzy_mnist",
    "growth": "benchmarks.growth.command",
    "imbalance": "benchmarks.studies.imbalance",
    "learning": "benchmarks.studies.learning",
    "leave_one_out": "benchmarks.studies.leave_one_out",
    "live_swap": "benchmarks.studies.live_swap",
    "photographs": "benchmarks.studies.photographs",
    "sharc_recall": "benchmarks.studies.sharc_recall",
    "sharc_replay": "benchmarks.studies.sharc_replay",
    "fuzz": "benchmarks.drills.fuzz",
    "kills": "benchmarks.drills.kills",
    "readiness": "benchmarks.serving.readiness",
    "process_kills": "benchmarks.drills.process_kills",
    "redis_gone": "benchmarks.drills.redis_gone",
    "saturation": "benchmarks.drills.saturation",
    "schema": "benchmarks.drills.schema",
    "seeing": "benchmarks.drills.seeing",
    "serving": "benchmarks.serving.command",
    "silence": "benchmarks.drills.silence",
    "storage": "benchmarks.drills.storage",
    "small_task": "benchmarks.studies.small_task",
    "strangers": "benchmarks.studies.strangers",
    "plots": "benchmarks.reports.plots",
    "tables": "benchmarks.reports.tables",
}
"""Modules of studies, drills and reports, which have options of their own."""


def descriptions() -> dict[str, str]:
    """The description of every scenario; of a module, the first line of its docstring, without importing it."""
    found = dict(SEQUENCES)
    for scenario, module in PROGRAMS.items():
        file = Path(__file__).parents[1].joinpath(*module.split(".")).with_suffix(".py")
        docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
        found[scenario] = docstring.partition("\n")[0].rstrip(".")
    return found


def usage() -> str:
    """The form of the command, and the list of scenarios."""
    rows = [f"  {scenario:<20} {description}" for scenario, description in descriptions().items()]
    return "\n".join(["usage: python -m benchmarks SCENARIO [options]", "", "SCENARIO is one of", *rows])


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the scenario named by the first argument, with the options after it."""
    words = sys.argv[1:] if arguments is None else arguments
    scenario, given = (words[0] if words else ""), list(words[1:])
    if scenario in SEQUENCES:
        sequences.main(scenario, SEQUENCES[scenario], given)
    elif scenario in PROGRAMS:
        sys.argv = [f"python -m benchmarks {scenario}", *given]
        sys.exit(import_module(PROGRAMS[scenario]).main())
    elif scenario in ("-h", "--help"):
        print(usage())
        sys.exit(0)
    else:
        if scenario:
            print(f"no scenario is called {scenario!r}\n", file=sys.stderr)
        print(usage(), file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
