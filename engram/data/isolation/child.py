"""Process that decodes one image after the other for its parent, with limits on itself.

    python -m engram.data.isolation.child PARENT MEMORY

`PARENT` is the parent's process id and `MEMORY` the bytes that a decoding may take. Requests come on standard input and
answers go to standard output. Without PyTorch, so that it starts fast and is small.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from engram.config.definition import InputShape
from engram.data.image_limits import ImageLimits
from engram.data.isolation.frames import PATIENCE, packed, unpacked
from engram.data.pictures import pixels
from engram.errors import ImageError, ImageTooCostly

_PR_SET_PDEATHSIG = 1


def restrict(parent: int, memory: int) -> None:
    """Limit this process, and have it end with its parent."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        raise SystemExit("the parent has ended")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: it is the parent that ends
    with suppress(OSError):
        os.nice(5)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    allowed = used + memory if most == resource.RLIM_INFINITY else min(used + memory, most)
    resource.setrlimit(resource.RLIMIT_AS, (allowed, allowed))


def serve() -> None:
    """Say that this process is ready, and answer requests until there are no more."""
    for piece in packed({"ready": True}):
        _write(piece)
    while True:
        try:
            request, data = unpacked(_read, sys.maxsize)
        except EOFError:
            return
        _allow(request["limits"]["max_seconds"])
        answer, body = _answer(request, data)
        _allow(0)
        del data
        for piece in packed(answer, body):
            _write(piece)
        if answer.get("exhausted"):
            return


def _answer(request: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
    try:
        shape, limits = InputShape.model_validate(request["shape"]), ImageLimits(**request["limits"])
        return {}, pixels(data, shape, limits, request["decoder"]).tobytes()
    except ImageError as error:
        return {"code": error.code, "detail": str(error)}, b""
    except MemoryError:
        detail = "decoding the image takes more memory than allowed"
        return {"code": ImageTooCostly.code, "detail": detail, "exhausted": True}, b""


def _allow(seconds: float) -> None:
    """Have the kernel end this process after so much processor time, or a multiple of it by the clock; 0 is never."""
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_REAL, seconds * PATIENCE)


def _read(length: int) -> bytes:
    data = sys.stdin.buffer.read(length)
    if len(data) < length:
        raise EOFError
    return data


def _write(data: bytes | memoryview) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    restrict(int(sys.argv[1]), int(sys.argv[2]))
    serve()
