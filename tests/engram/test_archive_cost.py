from __future__ import annotations

import sys
import zipfile
from pathlib import Path

from engram.archives import inspect
from engram.containers import ArchiveLimits


def test_the_time_of_an_inspection_grows_with_the_archive_and_not_with_its_square(tmp_path: Path) -> None:
    """Counted in calls, since a clock would judge the machine."""

    def calls(count: int) -> int:
        path = tmp_path / f"{count}.zip"
        with zipfile.ZipFile(path, "w") as file:
            for number in range(count):
                file.writestr(f"{number % 20:02}/{number:05}.png", b"x")
        counted = 0

        def count_call(*_: object) -> None:
            nonlocal counted
            counted += 1

        sys.setprofile(count_call)
        try:
            inspect(path, ArchiveLimits())
        finally:
            sys.setprofile(None)
        return counted

    assert calls(4000) < 5 * calls(1000)
