"""Process that decodes images, started when needed, and killed when one takes too long."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

import numpy
from numpy.typing import NDArray

from engram.config.definition import InputShape
from engram.data.image_limits import ImageLimits
from engram.data.isolation.frames import PATIENCE, packed, unpacked
from engram.errors import Cancelled, ImageError, ImageTooCostly, TruncatedImage

POLL_SECONDS = 0.05
"""Between two looks at whether to stop."""
START_SECONDS = 120.0
"""What a process may take to start."""
GRACE_SECONDS = 10.0
"""What an image may take, beyond the time at which its process ends itself, to be sent there and back."""
LIFETIME = 1000
"""Images after which a process is replaced, whatever they have left in it."""
_OVER_TIME = frozenset({signal.SIGPROF, signal.SIGALRM, signal.SIGXCPU})


class DecodingProcess:
    """One process that decodes an image at a time. For one thread at a time."""

    def __init__(self, limits: ImageLimits, starter: ThreadPoolExecutor) -> None:
        self._limits = limits
        self._starter = starter
        self._process: subprocess.Popen[bytes] | None = None
        self._decoded = 0

    @property
    def pid(self) -> int | None:
        """The id of the process, if it runs."""
        return None if self._process is None else self._process.pid

    def decode(
        self, data: bytes, shape: InputShape, decoder: int, stop: Callable[[], bool] = lambda: False
    ) -> NDArray[numpy.uint8]:
        """Pixels (H, W, C) of an image.

        Raises
        ------
        ImageError
            The image's own, ImageTooCostly where it takes more than its limits, TruncatedImage where it ends the
            process in another way.
        Cancelled
            `stop` turned true; the process is killed.
        RuntimeError
            The process cannot be started, for which no image is to blame.
        """
        process = self._running(stop)
        request = {"shape": shape.model_dump(mode="json"), "limits": asdict(self._limits), "decoder": decoder}
        until = time.monotonic() + GRACE_SECONDS + PATIENCE * self._limits.max_seconds
        try:
            for piece in packed(request, data):
                self._send(process, piece, stop, until)
            size = shape.height * shape.width * shape.channels
            answer, body = unpacked(lambda length: self._receive(process, length, stop, until), size)
        except (EOFError, BrokenPipeError):
            raise self._ended(process) from None
        except BaseException:
            self.close()
            raise
        self._decoded += 1
        if answer.get("exhausted") or self._decoded >= LIFETIME:
            self.close()
        if "code" in answer:
            raise _errors().get(answer["code"], ImageError)(answer["detail"])
        if len(body) != size:
            self.close()
            raise TruncatedImage("the image is cut off or damaged")
        return numpy.frombuffer(bytearray(body), numpy.uint8).reshape(shape.height, shape.width, shape.channels)

    def close(self) -> None:
        """Kill the process; the next image starts another one."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None, "both are pipes"
                pipe.close()

    def _running(self, stop: Callable[[], bool]) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is not None:
            self.close()
        if self._process is None:
            # The kernel ends the process with the thread that started it, so that is one which stays.
            self._process = process = self._starter.submit(_start, self._limits.max_memory).result()
            self._decoded = 0
            try:
                until = time.monotonic() + START_SECONDS
                unpacked(lambda length: self._receive(process, length, stop, until), 0)
            except Cancelled:
                self.close()
                raise
            except (EOFError, ImageTooCostly) as error:
                status = process.poll()
                self.close()
                raise RuntimeError(f"the process that decodes images did not start; its status is {status}") from error
        return self._process

    def _send(
        self, process: subprocess.Popen[bytes], data: bytes | memoryview, stop: Callable[[], bool], until: float
    ) -> None:
        assert process.stdin is not None, "it is a pipe"
        left = memoryview(data)
        while left:
            _wait(process.stdin.fileno(), select.POLLOUT, stop, until)
            left = left[os.write(process.stdin.fileno(), left[: 2**16]) :]

    def _receive(self, process: subprocess.Popen[bytes], length: int, stop: Callable[[], bool], until: float) -> bytes:
        assert process.stdout is not None, "it is a pipe"
        found = bytearray()
        while len(found) < length:
            _wait(process.stdout.fileno(), select.POLLIN, stop, until)
            piece = os.read(process.stdout.fileno(), length - len(found))
            if not piece:
                raise EOFError
            found += piece
        return bytes(found)

    def _ended(self, process: subprocess.Popen[bytes]) -> ImageError:
        """The error of an image that has ended the process."""
        status = process.wait()
        self.close()
        if -status in _OVER_TIME:
            return self._too_slow()
        if -status == signal.SIGKILL:
            return ImageTooCostly("decoding the image takes more memory than there is")
        return TruncatedImage("the image is cut off or damaged: it ended the process that decoded it")

    def _too_slow(self) -> ImageTooCostly:
        return ImageTooCostly(f"decoding the image takes longer than {self._limits.max_seconds:g} s")


def _wait(file: int, event: int, stop: Callable[[], bool], until: float) -> None:
    """Return when a pipe can be used; raises Cancelled or ImageTooCostly."""
    poll = select.poll()
    poll.register(file, event)
    while not poll.poll(POLL_SECONDS * 1000):
        if stop():
            raise Cancelled("stopped while an image was decoded")
        if time.monotonic() > until:
            raise ImageTooCostly("decoding the image takes too long")


def _start(memory: int) -> subprocess.Popen[bytes]:
    path = os.pathsep.join(os.path.abspath(folder) for folder in sys.path)
    # Nothing else of the environment, which may hold secrets, comes near strangers' bytes.
    environment = {"PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "LC_ALL": "C.UTF-8"}
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "engram.data.isolation.child", str(os.getpid()), str(memory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        cwd="/",
        process_group=0,
        bufsize=0,
    )
    assert process.stdin is not None, "it is a pipe"
    os.set_blocking(process.stdin.fileno(), False)
    return process


def _errors() -> dict[Any, type[ImageError]]:
    """The errors of images, by their codes."""

    def below(kind: type[ImageError]) -> Iterator[type[ImageError]]:
        yield kind
        for one in kind.__subclasses__():
            yield from below(one)

    return {kind.code: kind for kind in below(ImageError)}
