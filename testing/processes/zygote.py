"""A process that has imported a program and forks others that run it; a script, run by its path."""

from __future__ import annotations

import array
import ctypes
import gc
import importlib
import json
import os
import runpy
import secrets
import signal
import socket
import sys
import tempfile
import time
from dataclasses import dataclass

PRELOADED = {
    "service": ("service.app", "service.cli.main", "service.cli.replica"),
    "worker": ("worker.__main__", "engram.methods.eidetic.staged.learner", "torch._dynamo"),
}
"""What takes most of a program's first seconds, and of its first task."""

DRAWN = {"service.middleware.request_log": "_PROCESS"}
"""What a module draws by chance when it is imported, 16 hexadecimal digits, which no two processes share."""

PR_SET_PDEATHSIG = 1
DESCRIPTORS = 2
"""Standard output and standard error."""


@dataclass(frozen=True)
class Launch:
    """A program to be run."""

    words: list[str]
    """Of the command line, after the program's name."""
    environment: dict[str, str]
    folder: str
    niceness: int
    parent: int
    """Who is its parent once the process in between has ended."""
    streams: list[int]


def received(channel: socket.socket) -> Launch | None:
    """The next request, None at the end: its length, descriptors, and JSON."""
    room = socket.CMSG_SPACE(DESCRIPTORS * array.array("i").itemsize)
    head, ancillary, _, _ = channel.recvmsg(8, room)
    if not head:
        return None
    streams = array.array("i")
    for _, _, data in ancillary:
        streams.frombytes(data)
    with channel.makefile("rb") as file:
        return Launch(**json.loads(file.read(int.from_bytes(head, "big"))), streams=list(streams))


def begun(asked: Launch, channel: socket.socket) -> bool:
    """Fork a child whose parent is whoever asked; true in that child."""
    if between := os.fork():
        os.waitpid(between, 0)
        for stream in asked.streams:
            os.close(stream)
        return False
    if os.fork():
        os._exit(0)
    become(asked)
    channel.sendall(os.getpid().to_bytes(8, "big"))
    channel.close()
    return True


def become(asked: Launch) -> None:
    """Make this process what it would be, had it been started: its session, streams, folder, environment, parent."""
    os.setsid()
    deadline = time.monotonic() + 60
    while os.getppid() != asked.parent:
        if time.monotonic() > deadline:
            os._exit(1)
        time.sleep(0.001)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    for stream, number in zip(asked.streams, (1, 2), strict=True):
        os.dup2(stream, number)
        os.close(stream)
    os.environ.clear()
    os.environ.update(asked.environment)
    os.chdir(asked.folder)
    os.nice(asked.niceness)
    tempfile.tempdir = None  # which the environment decides
    for name in DRAWN.keys() & sys.modules.keys():
        assert len(getattr(sys.modules[name], DRAWN[name])) == 16
        setattr(sys.modules[name], DRAWN[name], secrets.token_hex(8))


def main() -> None:
    """Fork the program that is the first argument, as the socket asks whose number is the second, until its end."""
    program, channel = sys.argv[1], socket.socket(fileno=int(sys.argv[2]))
    for name in PRELOADED[program]:
        importlib.import_module(name)
    sys.modules.pop(f"{program}.__main__", None)  # which is to run as the main module
    gc.collect()
    gc.freeze()
    while (asked := received(channel)) is not None:
        assert len(os.listdir("/proc/self/task")) == 1, "a fork has one thread only, and none may be missing"
        if begun(asked, channel):
            sys.argv = [program, *asked.words]
            runpy.run_module(program, run_name="__main__", alter_sys=True)
            return


if __name__ == "__main__":
    main()
