"""Running the service on this machine, teaching it two tasks over HTTP, and asking it about an image.

    python examples/serve_and_ask.py FOLDER

Everything lies in FOLDER: the digits to learn from (those of `engram digits`), the service's data, its log, and the
heatmap of the answer. `engram serve` runs as a process of its own while the script talks to it, and is stopped at the
end.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

ENGRAM = str(Path(sys.executable).with_name("engram"))
"""The command beside the Python that runs this."""


@contextmanager
def service(folder: Path) -> Iterator[str]:
    """`engram serve` on a free port, until the block ends; yields its address."""
    command = [ENGRAM, "serve", "--data", str(folder / "data"), "--port", "0"]
    with (
        (folder / "serve.log").open("wb") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        try:
            assert process.stdout is not None, "its output was asked for"
            line = process.stdout.readline()  # Engram is listening on http://127.0.0.1:PORT
            if "listening on" not in line:
                raise SystemExit(f"engram serve did not start; see {folder / 'serve.log'}")
            yield line.split()[-1]
        finally:
            process.terminate()


def ask(client: httpx.Client, method: str, path: str, **options: Any) -> Any:
    """The JSON of an answer; a refusal ends the script with its code and sentence."""
    response = client.request(method, path, **options)
    if response.is_error:
        problem = response.json()
        raise SystemExit(f"{method} {path}: {problem['code']}: {problem['detail']}")
    return response.json()


def learn(client: httpx.Client, task: str, archive: Path) -> None:
    """Upload an archive of `<class>/<image>`, and wait until its job has ended."""
    with archive.open("rb") as data:
        job = ask(client, "POST", "/v1/models/digits/tasks", data={"name": task}, files={"data": data})["job"]
    while job["state"] in ("queued", "running"):
        time.sleep(0.2)
        job = ask(client, "GET", f"/v1/jobs/{job['id']}")
    if job["state"] != "succeeded":
        raise SystemExit(f"{task} was not learned: {job['error']}")
    print(f"learned {task}: version {job['result']['version']}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve a model, teach it two tasks, and ask it.")
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run([ENGRAM, "digits", "--output", str(folder / "digits")], check=True)

    with service(folder) as address, httpx.Client(base_url=address, timeout=60) as client:
        definition = {"backbone": "cnn", "input": {"channels": 1, "height": 28, "width": 28}}
        ask(client, "POST", "/v1/models", json={"name": "digits", **definition})
        for task in ("zero-one", "two-three"):
            learn(client, task, folder / "digits" / f"{task}.zip")
        while ask(client, "GET", "/v1/models/digits")["version"] < 2:  # live a moment after it is published
            time.sleep(0.05)

        image = sorted((folder / "digits" / "held-out").glob("three-*.png"))[0].read_bytes()
        png: dict[str, Any] = {"content": image, "headers": {"Content-Type": "image/png"}}
        answer = ask(client, "POST", "/v1/models/digits/predict", **png)["predictions"][0]
        print(f"answer: task {answer['task']}, label {answer['label']}, known: {answer['known']}")

        heatmap = client.post("/v1/models/digits/explain", **png).raise_for_status()
        (folder / "heatmap.png").write_bytes(heatmap.content)
        print(f"heatmap: {folder / 'heatmap.png'}")

        before, after = (ask(client, "GET", f"/v1/models/digits/versions/{number}/certificate") for number in (1, 2))
        same = before["tasks"][0]["logits_sha256"] == after["tasks"][0]["logits_sha256"]
        print(f"certificates of versions 1 and 2 agree on zero-one: {'yes' if same else 'NO'}")


if __name__ == "__main__":
    main()
