"""Tests of `serving`: a row measured really, peers' networks, clients, bodies, tables."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from starlette.requests import Request

from benchmarks.baselines.network import BaselineNetwork
from benchmarks.harness.datasets import MissingData
from benchmarks.harness.results import rows_of
from benchmarks.harness.usage import family, machine_seconds, processor_seconds, proportional_bytes, settle
from benchmarks.reports import serving
from benchmarks.serving import client, command, stores
from benchmarks.serving.client import Bodies, FailedRequests
from benchmarks.serving.networks import NETWORKS, ServedNetwork, digits, sized
from benchmarks.serving.peers.bodies import image_files
from benchmarks.serving.peers.network import BroughtNetwork, PeerClassifier, PeerPlan, PlainNetwork, network_of
from benchmarks.serving.rounds import compared
from benchmarks.serving.stores import encoded
from benchmarks.serving.targets import PEERS
from engram import Definition, Examples
from engram.nn.pretrained.architectures import architecture
from engram.nn.pretrained.inspection import at_size
from engram.nn.pretrained.network import network as brought_network
from testing.processes.processes import eventually


@pytest.mark.parametrize("name", [name for name, network in NETWORKS.items() if not network.over_brought])
def test_peers_run_the_same_network(name: str) -> None:
    network, names = NETWORKS[name], ("a", "b", "c")
    told = PeerPlan.read(network.plan(names, 1, 1, 2).written())
    assert (told.workers, told.labels) == (2, names)
    reference = BaselineNetwork(network.definition(network.peer_width), names, 7).eval()
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter.add_(torch.rand(parameter.shape, generator=torch.Generator().manual_seed(1)), alpha=0.01)
    found = PlainNetwork(told).eval()
    weights = dict(zip(found.state_dict(), reference.state_dict().values(), strict=True))
    found.load_state_dict(weights)
    images = digits(network.colour).test[0][:5]
    with torch.no_grad():
        assert torch.allclose(found(images), reference(images), atol=1e-4)


def test_peers_run_the_network_that_was_brought(tmp_path: Path) -> None:
    architecture("timm/tf_efficientnet_lite0")  # what is missing beside this build of PyTorch is made up for
    file = tmp_path / "tf_efficientnet_lite0.safetensors"
    save_file(import_module("timm").create_model("tf_efficientnet_lite0").state_dict(), file)
    network, names = NETWORKS["lite0"].over(tmp_path), ("a", "b", "c")
    assert network.brought is not None
    found = network_of(PeerPlan.read(network.plan(names, 1, 1, 2).written()))
    assert isinstance(found, BroughtNetwork)
    images = sized(Examples(digits(colour=True).test[0][:2], torch.tensor([0, 1]), ("0", "1")), network.side).images
    assert images.shape[2:] == (128, 128)
    with torch.no_grad():
        assert found(images).shape == (2, 3)
        seen = found.network.forward_head(found.network.forward_features(found.prepared(images)), pre_logits=True)
    description = at_size(network.brought.description, network.side)
    expected = brought_network(description, network.brought.weights).look(images).features
    torch.testing.assert_close(seen, expected)
    with pytest.raises(MissingData):
        NETWORKS["lite0"].over(None)


@pytest.mark.parametrize("colour", [False, True])
def test_peers_answer_for_what_was_sent(colour: bool) -> None:
    network = NETWORKS["cnn32" if colour else "mlp28"]
    classifier = PeerClassifier(network.plan(("a", "b"), 1, torch.get_num_threads(), 1))
    image = digits(colour).test[0][0]
    decoded = classifier.decode(encoded(image))
    assert decoded.shape == image.shape
    difference = (decoded.int() - image.int()).abs().float().mean()
    assert difference < 8 if colour else difference == 0  # a JPEG is not exact
    [answer] = classifier.answer(decoded[None])
    assert answer["label"] in ("a", "b")
    assert 0.5 <= answer["probability"] <= 1


def test_a_form_brings_the_same_files_to_all(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for number in range(5):
        (images / f"{number}").write_bytes(bytes([number]) * 100)
    bodies = client.forms(images, tmp_path / "forms", 3, "image/png")
    [file] = bodies.files
    scope = {"type": "http", "method": "POST", "headers": [(b"content-type", bodies.content_type.encode())]}

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": file.read_bytes(), "more_body": False}

    found = asyncio.run(image_files(Request(scope, receive)))
    assert found == [bytes([number]) * 100 for number in range(3)]


@contextmanager
def answering(status: int) -> Iterator[tuple[str, list[bytes]]]:
    """A server that answers every request with a status; its address, and the bodies that it was sent."""
    seen: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            seen.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(status)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", seen
        finally:
            server.shutdown()
            thread.join(60)


@pytest.fixture(params=["wrk", "sockets"])
def which(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each client; that of the machine where wrk is not installed."""
    name: str = request.param
    if name == "sockets":
        monkeypatch.setattr(client, "client_name", lambda: "sockets")
    return name


def test_a_round_sends_every_body_and_counts_answers(which: str, tmp_path: Path) -> None:
    contents = {bytes([number]) * (number + 1) for number in range(3)}
    for number, content in enumerate(sorted(contents)):
        (tmp_path / f"{number}").write_bytes(content)
    bodies = Bodies(tmp_path, "image/png", 1)
    with answering(200) as (address, seen):
        found = client.ask(address, "/predict", bodies, 0.3, 2)
    assert set(seen) == contents
    assert 0 <= len(seen) - found.answers <= 2, "what is under way at the end has no answer"
    assert found.seconds > 0.2
    assert 0 < found.p50 <= found.p99 < 1000 * found.seconds
    assert found.rate == pytest.approx(found.answers / found.seconds)
    assert found.client_seconds > 0


def test_an_answer_that_is_no_200_ends_the_run(which: str, tmp_path: Path) -> None:
    (tmp_path / "0").write_bytes(b"x")
    bodies = Bodies(tmp_path, "image/png", 1)
    with answering(503) as (address, _):
        with pytest.raises(FailedRequests):
            client.ask(address, "/predict", bodies, 0.3, 2)
        with pytest.raises(FailedRequests, match="503"):
            client.probe(address, "/predict", bodies)


def test_usage_is_that_of_all_processes() -> None:
    busy = "print(1, flush=True)\nwhile True: pass"
    program = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {busy!r}])"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        pids = family([process.pid])
        before, began = processor_seconds(pids), time.monotonic()
        settle(pids, 0.4)
        assert time.monotonic() - began >= 0.4, "it is never quiet"
        assert processor_seconds(pids) > before
        assert machine_seconds() > processor_seconds(pids)
        assert proportional_bytes(pids) > 1_000_000
        os.killpg(process.pid, 9)
    assert len(pids) == 2
    assert eventually(lambda: proportional_bytes(pids) == 0, 60)
    never = 2**22 + 1  # above the highest number of a process
    assert processor_seconds([never]) == proportional_bytes([never]) == 0


def figures(rate: float, processor_ms: float = 1.5) -> dict[str, Any]:
    """Figures of a server."""
    return {
        "rate": rate,
        "p50": 10.0,
        "p99": 25.0,
        "processor_ms": processor_ms,
        "memory_mb": 300,
        "client_share": 0.05,
        "others_share": 0.1,
        "rates": [rate],
    }


def row(servers: dict[str, dict[str, Any]], **changes: Any) -> dict[str, Any]:
    """A row of results."""
    fields = {
        "benchmark": "serving",
        "network": "cnn32",
        "tasks": 5,
        "request": "1",
        "data": "digits",
        "connections": 32,
        "servers": servers,
        "bare": {"network": 1000.0, "engram": 500.0},
    }
    return {**fields, **compared(servers), **changes}


def test_the_ratio_is_to_the_best_peer_and_an_empty_handler_is_none() -> None:
    servers = {"engram": figures(90.0, 2.0), "fastapi": figures(60.0, 0.5), "litserve-2": figures(120.0, 1.0)}
    found = compared({**servers, "empty": figures(5000.0, 0.1)})
    assert (found["best_peer"], found["ratio"]) == ("litserve-2", 0.75)
    assert (found["cheapest_peer"], found["processor_ratio"]) == ("fastapi", 0.25)
    assert set(compared({"engram": figures(1.0), "empty": figures(2.0)}).values()) == {None}
    assert set(serving.PEERS) <= PEERS.keys()
    assert set(serving.NETWORKS) == NETWORKS.keys()


def test_the_tables_have_a_line_for_each_row() -> None:
    servers = {"engram": figures(90.0), "fastapi": figures(120.0), "empty": figures(5000.0)}
    explained = {"engram": figures(90.0), serving.EXPLAINED: figures(30.0)}
    rows = [
        row(servers),
        row(servers, network="mlp28"),
        row(explained, request="explain"),
        row(servers),
        {"benchmark": "x"},
    ]
    lines = serving.table(rows).splitlines()
    assert lines[4] == (
        "| mlp28 | 5 | 1 | 1 | 90 | 10.0 / 25.0 | 2.5 | 1.50 | 300 | – | – | – | 120 | 10.0 / 25.0 | 1.50 | 300 "
        "| **0.75** | 1.00 | 5000 | 1000 / 500 | 5 % | 10 % |"
    )
    assert lines[5].startswith("| cnn32 | 5 | 1 |")
    assert lines[6] == ""
    assert lines[9] == "| cnn32 | 5 | 90 | 30.0 | 10.0 / 25.0 | 1.5 | **3.0** |"
    assert len(lines) == 10
    assert {line.count("|") for line in lines[2:6]} == {1 + len(serving.PREDICTIONS)}
    assert serving.table([{"benchmark": "x"}]) == ""


def test_the_options_say_what_is_asked() -> None:
    args = command.parser().parse_args(["--rows", "mlp28,cnn32", "--peers", "fastapi"])
    assert command.chosen_requests(args, 5) == command.REQUESTS
    assert command.chosen_requests(args, 20) == ("1",)
    assert command.chosen_peers(args, NETWORKS["mlp28"]) == ("fastapi",)
    assert [command.connections(images) for images in (1, 8, 32, 64)] == [32, 8, 2, 2]
    for wrong in (
        ["--rows", "vgg"],
        ["--peers", "apache"],
        ["--requests", "0"],
        ["--requests", "65"],
        ["--tasks", "21"],
    ):
        with pytest.raises(SystemExit):
            command.parser().parse_args(wrong)


class TinyNetwork(ServedNetwork):
    """A network that learns in a second."""

    def definition(self, width: float) -> Definition:
        fields = super().definition(width).model_dump(exclude_unset=True)
        return Definition.model_validate({**fields, "commons": {"features": 64, "patch": 5}})


def test_a_row_is_measured_really(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "TRAIN", 40)
    monkeypatch.setitem(stores.OPTIONS, "epochs", 1)
    monkeypatch.setitem(NETWORKS, "mlp28", TinyNetwork("mlp28", "mlp", colour=False, task_width=0.1, peer_width=0.1))
    said = ["--rows", "mlp28", "--tasks", "1", "--peers", "fastapi", "--seconds", "0.5", "--rounds", "1"]
    command.main([*said, "--requests", "1", "--cache", str(tmp_path / "kept"), "--out", str(tmp_path / "out.jsonl")])
    [found] = rows_of(tmp_path / "out.jsonl")
    servers: Any = found["servers"]
    assert servers.keys() == {"engram", "fastapi"}
    for measured in servers.values():
        assert measured["rate"] > 1
        assert 0 < measured["p50"] <= measured["p99"]
        assert measured["processor_ms"] > 0
        assert measured["memory_mb"] > 50
    assert found["best_peer"] == "fastapi"
    assert found["ratio"] == pytest.approx(servers["engram"]["rate"] / servers["fastapi"]["rate"], abs=1e-3)
    assert str(tmp_path) not in str(found["command"])
    assert "mlp28, 1 tasks" in capsys.readouterr().out
