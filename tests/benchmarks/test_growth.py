"""Tests of `growth`: the list of tasks, what is counted and timed, figures of answers, tables."""

from __future__ import annotations

import asyncio
import json
import random
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import combinations, product
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingTCPServer
from typing import Any
from xml.etree import ElementTree

import pytest
import torch

from benchmarks.growth import load
from benchmarks.growth.answers import BATCH, Batches, ask, covering, fastest, quality, stage_one, staged, timings
from benchmarks.growth.answers import worst_batch as worst
from benchmarks.growth.attempt import highest_resident
from benchmarks.growth.command import contenders, numbers, parser, parts
from benchmarks.growth.storage import CountingBackend
from benchmarks.growth.tasks import GROWTH_TASKS, GrowthTask, changed, digest, examples
from benchmarks.harness.datasets import CIFAR10_ORDER, ImageDataset
from benchmarks.harness.results import rows_of
from benchmarks.reports import growth
from engram import Memory
from testing.data.patterns import bars, learned
from tests.benchmarks.small import write_mnist
from vault.storage.local import LocalBackend

LIST = "5de2b56e4ce548e7c8c630e62c8c1f9a2253cd21211f72769cf04b9c7db24c75"


def test_the_tasks_are_what_they_were() -> None:
    assert digest() == LIST
    assert digest(GROWTH_TASKS[:-1]) != LIST
    assert len({task.seed for task in GROWTH_TASKS}) == len(GROWTH_TASKS) == 20
    names = [name for task in GROWTH_TASKS for name in task.classes(CIFAR10_ORDER)]
    assert len(set(names)) == 40
    assert names[:4] == list(CIFAR10_ORDER[:4])
    assert GROWTH_TASKS[-1].name(CIFAR10_ORDER) == "ship turned inverted and truck turned inverted"


def test_images_are_turned_and_inverted_pixel_by_pixel() -> None:
    images = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found = changed(images, GrowthTask(0, turned=True, inverted=True, seed=0))
    for number, channel, row, column in product(range(2), range(3), range(4), range(4)):
        # Counter-clockwise, the right edge becomes the top.
        assert found[number, channel, row, column] == 255 - images[number, channel, column, 3 - row]
    assert torch.equal(changed(images, GROWTH_TASKS[0]), images)


def digits() -> ImageDataset:
    """Ten classes of 30 images, each of one value that tells class and number."""
    labels = torch.arange(300) % 10
    images = (torch.arange(300) // 10 + 5 * labels).to(torch.uint8)[:, None, None, None].expand(300, 1, 8, 8)
    names = tuple(str(digit) for digit in range(10))
    return ImageDataset(names, (images, labels), (images + 100, labels))


def test_a_task_draws_half_of_each_class_by_its_seed() -> None:
    first, again, later = GROWTH_TASKS[1], GROWTH_TASKS[1], GROWTH_TASKS[11]
    train, test = examples(digits(), first, 20, 8)
    train.check()
    assert (train.classes, train.counts(), test.counts()) == (("2", "3"), (10, 10), (4, 4))
    assert all(10 <= value < 40 for value in train.images[:10, 0, 0, 0].tolist())
    assert all(115 <= value < 145 for value in test.images[4:, 0, 0, 0].tolist())
    assert len(set(train.images[:10, 0, 0, 0].tolist())) == 10
    assert torch.equal(examples(digits(), again, 20, 8)[0].images, train.images)
    other = examples(digits(), later, 20, 8)[0]
    assert other.classes == ("2 inverted", "3 inverted")
    assert not torch.equal(255 - other.images, train.images)


def test_a_batch_has_images_of_all_tasks_and_classes() -> None:
    tests = [bars(task) for task in range(3)]
    batches = Batches.of(tests)
    assert batches.mixed.shape[0] == batches.newest.shape[0] == BATCH
    found = Counter(
        (task, int(part.labels[row]))
        for image in batches.mixed
        for task, part in enumerate(tests)
        for row in (part.images == image).flatten(1).all(1).nonzero().flatten().tolist()
    )
    assert found.keys() == {(task, label) for task in range(3) for label in range(2)}
    assert all(any(torch.equal(image, other) for other in tests[2].images) for image in batches.newest)


def test_sets_are_chosen_that_cover_most() -> None:
    sets = [{"a"}, {"a", "b"}, {"a", "b"}, {"c"}, {"d", "e"}, {"a"}]
    assert covering(sets, 3) == [1, 4, 3]
    assert covering(sets, 6) == [1, 4, 3, 2, 0, 5]
    chance = random.Random(0)
    for _ in range(50):
        drawn = [set(chance.sample("abcdefg", chance.randint(1, 3))) for _ in range(7)]
        best = max(len(set().union(*some)) for some in combinations(drawn, 3))
        greedy = len(set().union(*(drawn[row] for row in covering(drawn, 3))))
        assert best * (1 - (2 / 3) ** 3) <= greedy <= best  # Nemhauser, Wolsey and Fisher 1978


def test_the_fastest_run_counts_and_the_first_does_not() -> None:
    pauses = {"a": [0.0, 0.03, 0.02], "b": [0.0, 0.05, 0.06]}
    waits = threading.Event()

    def call(name: str) -> None:
        waits.wait(pauses[name].pop(0) if len(pauses[name]) > 1 else pauses[name][0])

    found = fastest([lambda: call("a"), lambda: call("b")], 0.01)
    first, second = found.wall
    assert 20 <= first < 50 <= second
    assert all(0 <= worked < 20 for worked in found.processor), "waiting is no work"


@pytest.fixture(scope="module")
def memory() -> Memory:
    return learned("mlp", 3)


def test_the_quality_of_answers_against_plain_loops(memory: Memory) -> None:
    tests = [bars(task).subset(torch.arange(task, 96, 2 + task)) for task in range(3)]
    names = [info.name for info in memory.tasks]
    found = quality(memory, names, tests, ["all"])
    with_id, right, recognised, bins = [], [], [], dict[int, list[tuple[float, bool]]]()
    for name, test in zip(names, tests, strict=True):
        for image, label in zip(test.images, test.labels.tolist(), strict=True):
            [given] = memory.predict(image[None], name)
            [free] = memory.predict(image[None])
            with_id.append(given.label == test.classes[label])
            right.append(free.label == test.classes[label])
            recognised.append(free.task == name)
            bins.setdefault(min(14, int(free.probability * 15)), []).append((free.probability, right[-1]))
    gaps = [abs(sum(p for p, _ in inside) - sum(hit for _, hit in inside)) for inside in bins.values()]
    whole = len(right)
    assert found["images"] == whole
    assert found["with_id"] == pytest.approx(100 * sum(with_id) / whole, abs=0.01)
    answers = found["by_contenders"]["all"]
    assert answers["without_id"] == pytest.approx(100 * sum(right) / whole, abs=0.01)
    assert answers["recognised"] == pytest.approx(100 * sum(recognised) / whole, abs=0.01)
    assert answers["calibration_error"] == pytest.approx(sum(gaps) / whole, abs=2e-3)


def test_a_model_without_stages_has_no_figures_of_stages() -> None:
    plain = learned("mlp", 2, recipe=2)
    assert not staged(plain)
    assert stage_one(plain) is None
    tests = [bars(task) for task in range(2)]
    batches = Batches.of(tests)
    images = torch.cat([part.images for part in tests])
    assert worst(plain, batches.mixed, images, "all") == (batches.mixed, None)
    assert len(ask(plain, images[:1], 2)) == 1, "contenders mean nothing to it"
    found = timings(plain, plain, batches, images, ["all"], 0.01)
    times = found["by_contenders"]["all"]
    assert times.pop("worst_engrams") is None
    for figures in (times.pop("processor"), times):
        stages = {"stage_one", "stage_two", "stage_one_single", "stage_two_single"}
        assert {name for name, value in figures.items() if value is None} == stages
        assert all(value > 0 for value in figures.values() if value is not None)
    assert quality(plain, ["task 0", "task 1"], tests, ["all"])["by_contenders"]["all"]["engrams_run"] is None


def test_bytes_are_counted_by_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(70))
    storage = CountingBackend(LocalBackend(tmp_path / "store"))
    storage.write("blobs/a", bytes(1000), overwrite=False)
    storage.write("data/b", tmp_path / "file", overwrite=False)
    with pytest.raises(FileExistsError):
        storage.write("blobs/a", bytes(5), overwrite=False)
    assert storage.bytes_written == {"blobs": 1000, "data": 70}
    assert storage.read("blobs/a") == bytes(1000)
    assert b"".join(storage.stream("blobs/a")) == bytes(1000)
    assert b"".join(storage.stream("data/b")) == bytes(70)
    assert storage.bytes_read == {"blobs": 2000, "data": 70}
    assert list(storage.paths("blobs")) == ["blobs/a"]


def test_the_highest_memory_of_a_process_stays() -> None:
    before = highest_resident()
    block = bytearray(b"x" * 200_000_000)
    during = highest_resident()
    del block
    assert during >= max(before, 200_000_000)
    assert highest_resident() >= during


@contextmanager
def answering(answer: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """A server that answers every request with the same bytes; its address, and the bodies that it was sent."""
    bodies: list[bytes] = []

    class Serve(StreamRequestHandler):
        def handle(self) -> None:
            while line := self.rfile.readline():
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split()[1])
                if line == b"\r\n":
                    bodies.append(self.rfile.read(length))
                    self.wfile.write(answer)

    with ThreadingTCPServer(("127.0.0.1", 0), Serve) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", bodies
        finally:
            server.shutdown()
            thread.join(60)


def test_the_load_counts_answers_and_sends_every_image() -> None:
    with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}") as (address, bodies):
        found = asyncio.run(load.run(address, "/x", [b"one", b"three"], 0.3, 4))
    assert found["answers"] == len(bodies) > 4
    counts = Counter(bodies)
    assert counts.keys() == {b"one", b"three"}
    assert abs(counts[b"one"] - counts[b"three"]) <= 4
    assert 0 < float(str(found["p50"])) <= float(str(found["p99"]))


@pytest.mark.parametrize("answer", [b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n"])
def test_the_load_ends_with_an_answer_that_is_none(answer: bytes) -> None:
    with answering(answer) as (address, _), pytest.raises(ExceptionGroup) as ended:
        asyncio.run(load.run(address, "/x", [b"one"], 5.0, 1))
    assert ended.group_contains(load.BadAnswer)


def row(count: int, **changes: Any) -> dict[str, Any]:
    ms = {"mixed": 4.0 * count, "one_task": 4.0, "newest": 3.0, "worst": 9.0, "single": 1.0, "worst_engrams": None}
    stages = {"stage_one": None, "stage_two": None, "stage_one_single": None, "stage_two_single": None}
    fields: dict[str, Any] = {
        "benchmark": "growth",
        "data": "MNIST",
        "backbone": "cnn",
        "width": 1.0,
        "recipe": 2,
        "overrides": [],
        "images": 400,
        "seed": 0,
        "tasks": count,
        "learning": {
            "seconds": 5.0 + count,
            "cpu_seconds": 4.0,
            "phases": {"loading": 1.0, "training": 2.0, "pruning": 1.0, "verifying": 0.5, "publishing": 0.25},
            "bytes_read": {"blobs": 10_000_000 * count, "data": 999},
            "new_bytes": 20_000_000,
            "peak_bytes": 700_000_000,
        },
        "milliseconds": {"by_contenders": {"all": {**ms, **stages}}, "newest_task_given": 3.0},
        "quality": {
            "with_id": 99.0,
            "by_contenders": {
                "all": {
                    "without_id": 98.0,
                    "recognised": 98.5,
                    "calibration_error": 0.0123,
                    "one_contender": None,
                    "engrams_run": None,
                }
            },
        },
        "http": {"rate": 100.0, "rate_one_task": 200.0, "p50": 160.0, "p99": 300.0},
    }
    return {**fields, **changes}


def test_the_tables_stand_by_model_and_number_of_tasks() -> None:
    lines = growth.table([row(5), row(2), row(5, http=None), {"benchmark": "other"}]).splitlines()
    assert lines[0] == "#### growth"
    assert lines[2] == "cnn on MNIST (recipe 2, 400 images a task):"
    assert lines[6] == ("| 2 | all | – | – | 8.0 | 2.00 | 3.0 | 9.0 | 1.0 | – | – | 98.00 | 99.00 | 98.50 | 0.012 |")
    assert lines[11] == (
        "| 2 | 7.0 | 4.0 | 1.0 / 3.0 / 0.5 / 0.2 | 20.0 | 20.0 | 700 | "
        "1.00 / 1.00 / 1.00 / 1.00 / 1.00 | 100 | 0.50 | 160 / 300 |"
    )
    assert lines[12] == (
        "| 5 | 10.0 | 4.0 | 1.0 / 3.0 / 0.5 / 0.2 | 50.0 | 20.0 | 700 | "
        "1.43 / 1.00 / 2.50 / 1.00 / 1.00 | – | – | – / – |"
    )
    milliseconds = row(2)["milliseconds"]["by_contenders"]["all"]
    milliseconds["processor"] = {**milliseconds, "mixed": 6.0}
    told = growth.table([row(2, milliseconds={"by_contenders": {"all": milliseconds}})])
    assert "| 6.0 | 1.50 | 3.0 |" in told, "processor time goes first"
    assert {line.count("|") for line in lines[4:8]} == {1 + len(growth.ANSWERS)}
    assert {line.count("|") for line in lines[9:]} == {1 + len(growth.LEARNING)}
    assert growth.table([{"benchmark": "other"}]) == ""


def test_rows_of_learning_alone_have_one_table() -> None:
    only = {name: value for name, value in row(1).items() if name not in ("milliseconds", "quality", "http")}
    text = growth.table([only])
    assert growth.LEARNING[1] in text
    assert growth.ANSWERS[2] not in text


def test_the_picture_has_a_panel_for_each_figure_and_a_curve_for_each_model(tmp_path: Path) -> None:
    path = tmp_path / "growth.svg"
    growth.picture([row(1), row(5), row(1, recipe=3), row(5, recipe=3), row(5, recipe=3, http=None)], path)
    root = ElementTree.parse(path).getroot()
    words = [text.text for text in root.findall("{*}text")]
    assert {*growth.PANELS, "cnn on MNIST (recipe 3, 400 images a task)"} <= {*words}
    assert len(root.findall("{*}polyline")) == 2 * len(growth.PANELS)


def test_the_options_say_what_is_measured() -> None:
    assert numbers("20,1,2,1") == (1, 2, 20)
    assert contenders("1,3,all") == (1, 3, "all")
    assert parts("") == ()
    for wrong in (["--tasks", "21"], ["--tasks", "0"], ["--parts", "heatmaps"], ["--test", "31"]):
        with pytest.raises(SystemExit):
            parser().parse_args(["--data", "x", *wrong])


@pytest.mark.slow
def test_the_command_learns_asks_and_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_mnist(tmp_path, train=20, test=16)
    out, store = tmp_path / "out.jsonl", tmp_path / "kept"
    small = ["backbone=mlp", "epochs=1", "rounds=1", 'commons={"features": 64}']
    said = ["--data", str(tmp_path), "--width", "0.05", "--images", "40", "--test", "32", "--seconds", "0.05"]
    said += ["--store", str(store), "--out", str(out), *(part for one in small for part in ("--set", one))]
    from benchmarks.growth.command import main

    main([*said, "--tasks", "2"])
    main([*said, "--tasks", "1,2", "--parts", "answers", "--plot", str(tmp_path / "growth.svg")])
    later, first, again = rows_of(out)
    assert [one["tasks"] for one in (later, first, again)] == [2, 1, 2]
    assert later["learning"] == again["learning"], "nothing is learned twice"
    attempt: Any = later["learning"]
    assert attempt["task"] == "2 and 3"
    assert attempt["new_bytes"] == sum(attempt["new_parts"].values())
    assert attempt["bytes_written"]["blobs"] >= attempt["new_bytes"] > 0
    assert attempt["bytes_read"]["data"] > 0
    assert {"loading", "training", "verifying", "publishing"} <= attempt["phases"].keys()
    assert attempt["cpu_seconds"] > 0
    assert attempt["peak_bytes"] > attempt["idle_bytes"] > 0
    served: Any = later["http"]
    assert served["rate"] > 0
    assert later["task_list"] == digest()
    for command in (str(one["command"]) for one in (later, first, again)):
        assert command.startswith("python -m benchmarks growth")
        assert str(store) not in command
    assert json.dumps(later["definition"])
    assert (tmp_path / "growth.svg").exists()
