"""Tests of maps that lie in a file while a job learns."""

from __future__ import annotations

import errno
import os

import pytest

from engram.methods.eidetic.staged import shown_examples


def test_a_disk_without_room_is_an_error_before_anything_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sparse file would end the process by SIGBUS in the midst of learning."""

    def full(file: int, start: int, size: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shown_examples, "MOST_IN_MEMORY", 0)
    blank = shown_examples._blank((2, 3, 4, 4))
    blank += 1
    assert bool((blank == 1).all())
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        shown_examples._blank((2, 3, 4, 4))
