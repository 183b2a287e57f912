"""Load of predictions in a process of its own: raw sockets, keep-alive, the bodies of files in turn.

    python -m benchmarks.growth.load ADDRESS PATH FILES SECONDS CONNECTIONS [CONTENT_TYPE]

`FILES` is a folder of PNGs, or of what `CONTENT_TYPE` says, which are sent as they are, in turn. Every connection sends
its next request once it has the answer to the last. The output is one line of JSON. It imports neither PyTorch nor an
HTTP client, so that it takes little of the processors that it shares with the service: about 0.1 ms a request.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit


class BadAnswer(Exception):
    """An answer that is no 200, or none of HTTP/1.1 with a length."""


async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> None:
    """Send one request and read its answer; raises BadAnswer."""
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").lower().split("\r\n")
    length = next((line.partition(":")[2] for line in lines if line.startswith("content-length:")), None)
    if length is None:
        raise BadAnswer(f"no length: {status}")
    body = await reader.readexactly(int(length))
    if status.split()[1] != "200":
        raise BadAnswer(f"{status}: {body[:200]!r}")


async def run(
    address: str, path: str, bodies: list[bytes], seconds: float, connections: int, content_type: str = "image/png"
) -> dict[str, object]:
    """Ask for so many seconds; returns the number of answers, the seconds, and the quantiles of their milliseconds."""
    parts = urlsplit(address)
    head = f"POST {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: {content_type}\r\nContent-Length: "
    requests = [f"{head}{len(body)}\r\n\r\n".encode() + body for body in bodies]
    turn, taken = count(), list[float]()
    began = time.perf_counter()

    async def ask() -> None:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        try:
            while (sent := time.perf_counter()) < began + seconds:
                await exchange(reader, writer, requests[next(turn) % len(requests)])
                taken.append(time.perf_counter() - sent)
        finally:
            writer.close()

    async with asyncio.TaskGroup() as group:
        for _ in range(connections):
            group.create_task(ask())
    passed = time.perf_counter() - began
    taken.sort()
    quantiles = {f"p{share}": round(1000 * taken[len(taken) * share // 100], 1) for share in (50, 99)}
    return {"answers": len(taken), "seconds": round(passed, 3), **quantiles}


def main() -> None:
    address, path, folder, seconds, connections, *kind = sys.argv[1:]
    bodies = [file.read_bytes() for file in sorted(Path(folder).iterdir())]
    print(json.dumps(asyncio.run(run(address, path, bodies, float(seconds), int(connections), *kind))))


if __name__ == "__main__":
    main()
