"""Drill of a disk that is full during commits.

    python -m testing.drills.full_disk limit|tmpfs FOLDER REDIS_URL

It is a program of its own, since it fills its file system (`tmpfs`: FOLDER is a small one of its own) or limits the
size of its own files (`limit`, which works everywhere and fails at the same calls).
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from testing.data.models import MODEL, create, submit
from testing.data.planted_store import system_under_test
from testing.servers.service import wait_until
from vault.settings import VaultSettings


@contextmanager
def limited(size: int) -> Iterator[None]:
    """Inside, no file may grow beyond `size` bytes."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


@contextmanager
def filled(folder: Path, left: int) -> Iterator[None]:
    """Inside, the file system of `folder` has at most `left` free bytes."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(2**16))
    with filler.open("r+b") as file:
        file.truncate(filler.stat().st_size - left)
    try:
        yield
    finally:
        filler.unlink()


def main(kind: str, folder: Path, redis_url: str) -> None:
    """Learn one task on a sound disk, and one more for each amount of free space."""
    with system_under_test(
        VaultSettings(store_url=str(folder / "store"), redis_url=redis_url, lease_seconds=5)
    ) as system:
        create(system.vault)
        first = submit(system.vault, "first", (0, 1))
        assert system.wait_for_job(first.id)["state"] == "succeeded"
        wait_until(lambda: system.served_version() == 1, 60)
        # Space for small files only, and for some of a version's blobs.
        for number, left in enumerate((4096, 40_000), 2):
            digits = (2 * number - 2, 2 * number - 1)
            system.paused = True  # until the disk is full
            waiting = submit(system.vault, f"task-{number}", digits)
            with limited(left) if kind == "limit" else filled(folder, left):
                system.paused = False
                refused = system.upload("other", digits, 170)
                assert refused.status_code == 503, refused.text
                assert "Retry-After" in refused.headers
                until = time.monotonic() + 1
                while time.monotonic() < until:
                    assert system.served_version() == number - 1
                assert not system.vault.jobs.get(waiting.id).over
            done = system.wait_for_job(waiting.id)
            assert done["state"] == "succeeded", done
            wait_until(lambda number=number: system.served_version() == number, 60)
            system.assert_intact(number)
            broken_off = [one for one in system.vault.jobs.attempts(waiting.id) if not one.released]
            assert len(broken_off) == 1, "only the one that succeeded was not given back"
        # No staging file is left once the current writers are done.
        wait_until(lambda: list((folder / "store" / "staging").iterdir()) == [], 60)
        assert system.vault.log.head(MODEL) is not None


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
