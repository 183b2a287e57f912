"""Running the service on this machine, teaching it two tasks with the client, and asking it.

    python examples/serve_and_ask.py FOLDER

Everything lies in FOLDER: the digits to learn from (those of `engram digits`), the service's data, its log, and the
heatmap of the answer. `engram serve` runs as a process of its own while the script talks to it, and is stopped at the
end.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engram_client import Client, EngramClientError

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


def learn(client: Client, task: str, archive: Path) -> None:
    """Upload an archive of `<class>/<image>`, and wait until its job has ended."""
    job = client.learn("digits", task, archive).result()
    print(f"learned {task}: version {job.version}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve a model, teach it two tasks, and ask it.")
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run([ENGRAM, "digits", "--output", str(folder / "digits")], check=True)

    with service(folder) as address, Client(address) as client:
        client.create_model("digits", backbone="cnn", input={"channels": 1, "height": 28, "width": 28})
        for task in ("zero-one", "two-three"):
            learn(client, task, folder / "digits" / f"{task}.zip")

        image = sorted((folder / "digits" / "held-out").glob("three-*.png"))[0]
        answer = client.predict("digits", image)
        print(f"answer: task {answer.task}, label {answer.label}, known: {answer.known}")
        print(f"heatmap: {client.explain('digits', image).save(folder / 'heatmap.png')}")

        before, after = (client.certificate("digits", number) for number in (1, 2))
        same = before["tasks"][0]["logits_sha256"] == after["tasks"][0]["logits_sha256"]
        print(f"certificates of versions 1 and 2 agree on zero-one: {'yes' if same else 'NO'}")


if __name__ == "__main__":
    try:
        main()
    except EngramClientError as error:
        raise SystemExit(f"serve_and_ask: {error}") from error
