"""Order of the test files that several processes share, and which of them go together."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from xdist.scheduler import LoadFileScheduling

WAITING = tuple(f"tests/{name}/" for name in ("e2e", "examples", "page", "worker", "service/server", "service/cli"))
"""Folders whose tests often wait for other processes, and so leave the processors to others."""

SHORT = ("tests/repository/", "tests/telemetry/", "tests/vault/")
"""Folders of short files, which come last, so that the processes end at the same time."""

TOGETHER = {
    "tests/e2e/test_errors.py": "stack",
    "tests/e2e/test_live_swap.py": "stack",
    "tests/e2e/resilience/test_redis_outage.py": "rough_stack",
    "tests/e2e/resilience/test_saturation.py": "rough_stack",
}
"""Files that share a fixture which takes seconds to set up; those of `tests/repository` share what they have parsed."""


class Distribution(LoadFileScheduling):
    """As `--dist loadfile`, with files that belong together in one unit of work."""

    def _split_scope(self, nodeid: str) -> str:
        file: str = super()._split_scope(nodeid)
        return "tests/repository" if file.startswith("tests/repository/") else TOGETHER.get(file, file)


def order(files: Sequence[str]) -> dict[str, float]:
    """A place for each file: those that wait are spread evenly among those that compute, and short ones come last."""
    waiting = [file for file in files if file.startswith(WAITING)]
    short = [file for file in files if file.startswith(SHORT)]
    computing = [file for file in files if file not in {*waiting, *short}]
    # What waits comes a little early, so that none of it is left for the end.
    places = {file: 0.9 * number / len(waiting) for number, file in enumerate(waiting)}
    places |= {file: number / len(computing) for number, file in enumerate(computing)}
    return places | {file: 1.0 + number for number, file in enumerate(short)}


def ordered(items: Sequence[pytest.Item]) -> list[pytest.Item]:
    """The tests by the places of their files."""
    files = [item.nodeid.partition("::")[0] for item in items]
    places = order(list(dict.fromkeys(files)))
    return [items[number] for number in sorted(range(len(items)), key=lambda number: places[files[number]])]
