"""Standard input, output and error of a process that was started without them."""

from __future__ import annotations

import contextlib
import os
import sys

_MODES = (os.O_RDONLY, os.O_WRONLY, os.O_WRONLY)


def ensure_standard_streams() -> None:
    """Open the null device in place of each standard stream that is closed, for child processes too.

    Some programs start others with closed streams. Python then has None in place of `sys.stdout`, and the first file or
    socket that is opened gets the number, so that what libraries and child processes print would go into it. To be
    called before anything is opened that stays open.
    """
    for number, mode in enumerate(_MODES):
        try:
            os.fstat(number)
        except OSError:
            # The lowest number that is free is this one.
            handle = os.open(os.devnull, mode)
            os.set_inheritable(handle, True)
    for name, direction in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            stream = open(os.devnull, direction, encoding="utf-8")  # noqa: SIM115  # it stays open
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)


def flush_standard_streams() -> None:
    """Write out what is buffered; a terminal that was closed takes nothing any more, and that is no error."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
