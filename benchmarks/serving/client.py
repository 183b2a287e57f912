"""Client of one round: `wrk` where it is installed, else raw sockets of our own.

Requests go over connections that stay open, each with the next of several bodies in turn; every connection sends its
next request once it has the answer to the last.
"""

from __future__ import annotations

import json
import math
import os
import resource
import shutil
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from benchmarks.growth.store import ROOT
from service.protocol.requests import LENGTH_HEADER
from testing.processes.processes import plain_environment

LUA = Path(__file__).with_name("requests.lua")
PATIENCE_SECONDS = 60
BOUNDARY = "several-images"


class FailedRequests(Exception):
    """Requests of a round that were not answered with 200; the message is shown to the user."""


@dataclass(frozen=True)
class Bodies:
    """Bodies of requests, in files that are sent in turn."""

    folder: Path
    content_type: str
    images: int
    """In each body."""
    header_length: int | None = None
    """Bytes of JSON in each body, where tensors follow it as the Open Inference Protocol has them."""

    @property
    def headers(self) -> dict[str, str]:
        """What every request says of its body."""
        more = {} if self.header_length is None else {LENGTH_HEADER: str(self.header_length)}
        return {"Content-Type": self.content_type, **more}

    @property
    def told(self) -> str:
        """The content type with the headers behind it, as both clients write it into requests."""
        return "\r\n".join([self.content_type, *(f"{k}: {v}" for k, v in list(self.headers.items())[1:])])

    @property
    def files(self) -> list[Path]:
        return sorted(self.folder.iterdir())


@dataclass(frozen=True)
class Round:
    """What the client saw in one round."""

    answers: int
    seconds: float
    p50: float
    """Milliseconds."""
    p99: float
    client_seconds: float
    """Processor time of the client."""

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.answers / self.seconds

    @property
    def client_share(self) -> float:
        """Share of the machine's processors that the client took."""
        return self.client_seconds / self.seconds / cores()


def cores() -> int:
    """Processors that this program may run on."""
    return len(os.sched_getaffinity(0))


def client_name() -> str:
    """Which client is taken."""
    return "wrk" if shutil.which("wrk") else "sockets"


def forms(images: Path, folder: Path, each: int, content_type: str) -> Bodies:
    """Forms of so many images each, made of the files of a folder in turn."""
    folder.mkdir(parents=True, exist_ok=True)
    files = sorted(images.iterdir())
    count = max(1, len(files) // each)
    for number in range(count):
        chosen = [files[(number * each + place) % len(files)] for place in range(each)]
        parts = [("image", (file.name, file.read_bytes(), content_type)) for file in chosen]
        kind = f"multipart/form-data; boundary={BOUNDARY}"
        request = httpx.Request("POST", "http://localhost", files=parts, headers={"Content-Type": kind})
        (folder / f"{number:04}").write_bytes(request.read())
    return Bodies(folder, f"multipart/form-data; boundary={BOUNDARY}", each)


def tensors(images: Path, folder: Path) -> Bodies:
    """The files of a folder in the binary extension of the Open Inference Protocol; the answer is to be so, too."""
    folder.mkdir(parents=True, exist_ok=True)
    length = 0
    for number, file in enumerate(sorted(images.iterdir())):
        data = file.read_bytes()
        raw = struct.pack("<I", len(data)) + data
        about = {"binary_data_size": len(raw)}
        given = {"name": "image", "shape": [1], "datatype": "BYTES", "parameters": about}
        text = json.dumps({"inputs": [given], "parameters": {"binary_data_output": True}}).encode()
        length = length or len(text) + 8  # the same in all, whatever the sizes in it
        (folder / f"{number:04}").write_bytes(text.ljust(length) + raw)
    return Bodies(folder, "application/octet-stream", 1, length)


def probe(address: str, path: str, bodies: Bodies) -> None:
    """Send every body once and look at the answers; raises FailedRequests."""
    with httpx.Client(base_url=address, timeout=PATIENCE_SECONDS) as client:
        for file in bodies.files:
            answer = client.post(path, content=file.read_bytes(), headers=bodies.headers)
            if answer.status_code != 200:
                raise FailedRequests(f"{address}{path} answered {answer.status_code}: {answer.text[:300]}")
            if "predictions" in answer.text:
                rows = answer.json()["predictions"]
                if len(rows) != bodies.images or any("error" in row for row in rows):
                    raise FailedRequests(f"{address}{path} did not answer all images: {answer.text[:300]}")


def ask(address: str, path: str, bodies: Bodies, seconds: float, connections: int) -> Round:
    """One round; wrk counts in whole seconds.

    Raises
    ------
    FailedRequests
        An answer was no 200, or there was none.
    """
    before = _children_seconds()
    if client_name() == "wrk":
        found = _wrk(address, path, bodies, seconds, connections)
    else:
        found = _sockets(address, path, bodies, seconds, connections)
    worked = _children_seconds() - before
    if found["failed"] or not found["answers"]:
        raise FailedRequests(f"{address}{path}: {found['failed']} requests failed, {found['answers']} were answered")
    return Round(found["answers"], found["seconds"], found["p50"], found["p99"], worked)


def _wrk(address: str, path: str, bodies: Bodies, seconds: float, connections: int) -> dict[str, Any]:
    words = ["-t1", f"-c{connections}", f"-d{math.ceil(seconds)}s", f"--timeout={PATIENCE_SECONDS}s", "-s", str(LUA)]
    command = ["wrk", *words, address + path, "--", bodies.told, *map(str, bodies.files)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise FailedRequests(f"wrk ended with the status {ended.returncode}: {ended.stderr.strip()}")
    found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return found


def _sockets(address: str, path: str, bodies: Bodies, seconds: float, connections: int) -> dict[str, Any]:
    words = [address, path, str(bodies.folder), str(seconds), str(connections), bodies.told]
    command = [sys.executable, "-m", "benchmarks.growth.load", *words]
    ended = subprocess.run(command, env=plain_environment(), cwd=ROOT, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise FailedRequests(ended.stderr.strip().splitlines()[-1])
    return {**json.loads(ended.stdout), "failed": 0}


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
