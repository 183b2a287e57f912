"""Tests of Memory: repeatability, cancellation, capacity, threads, saving, damaged files."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
import torch

from engram import Examples, Memory
from engram.certificate import Certificate, certify, compare
from engram.checkpointing.progress import Progress
from engram.checkpointing.tensors import content_hash, pack, unpack
from engram.errors import (
    AccuracyTooLow,
    Cancelled,
    CapacityExhausted,
    DamagedSnapshot,
    EngramError,
    InvalidDefinition,
    NothingLearned,
    RecognitionTooLow,
    TaskExists,
    UnsupportedFormat,
)
from engram.memory import dump, restore
from testing.data.patterns import QUICK, bars, definition, learned, learned_anew, network_of


def test_the_same_seeds_give_the_same_bytes() -> None:
    first = dump(learned("cnn", tasks=2))
    assert dump(learned_anew("cnn", tasks=2)) == first
    assert dump(learned_anew("cnn", tasks=2, seed=1)).engrams != first.engrams


def test_examples_are_left_as_they_were() -> None:
    examples = bars(0)
    images, labels = examples.images.clone(), examples.labels.clone()
    Memory.create(definition()).learn("task", examples, QUICK)
    assert torch.equal(examples.images, images)
    assert torch.equal(examples.labels, labels)


def test_progress_rises_through_the_phases_in_order() -> None:
    reported: list[Progress] = []
    Memory.create(definition()).learn("task", bars(0), QUICK, progress=reported.append)
    fractions = [progress.fraction for progress in reported]
    assert fractions == sorted(fractions)
    assert fractions[-1] == pytest.approx(1.0)
    phases = list(dict.fromkeys(progress.phase for progress in reported))
    assert [phase for phase in phases if phase not in ("pruning", "recovering")] == [
        "training",
        "freezing",
        "recognising",
    ]


@pytest.mark.parametrize("phase", ["training", "pruning", "recognising"])
def test_cancelling_in_any_phase_leaves_the_model_as_it_was(phase: str) -> None:
    memory = learned("cnn", tasks=1)
    before, reached = dump(memory), threading.Event()

    def note(progress: Progress) -> None:
        if progress.phase == phase:
            reached.set()

    with pytest.raises(Cancelled):
        memory.learn("another", bars(1), QUICK, progress=note, cancel=reached.is_set)
    assert dump(memory) == before
    memory.learn("another", bars(1), QUICK)
    assert [info.name for info in memory.tasks] == ["task 0", "another"]


def test_capacity_is_counted_spent_refused_and_raised() -> None:
    memory = learned("mlp", tasks=1, budget={"dense1": 30, "dense2": 30})
    for layer in memory.capacity():
        assert layer.units == 30
        assert layer.owned == {"task 0": memory.tasks[0].units[layer.layer]}
        assert layer.free == 30 - layer.owned["task 0"]
    whole = QUICK.model_copy(update={"prune": False})
    memory.learn("task 1", bars(1), whole)
    with pytest.raises(CapacityExhausted, match="raise the budget"):
        memory.learn("task 2", bars(2), whole)
    before = certify(memory)
    with pytest.raises(InvalidDefinition, match="only be raised"):
        memory.raise_budget({"dense1": 29})
    with pytest.raises(InvalidDefinition, match="no such layer"):
        memory.raise_budget({"dense9": 100})
    memory.raise_budget({"dense1": 200, "dense2": 200})
    assert compare(before, certify(memory)) == []
    memory.learn("at last", bars(2), QUICK)
    assert compare(before, certify(memory)) == []


def test_a_taken_name_and_an_empty_model_are_refused() -> None:
    memory = learned("mlp", tasks=1)
    with pytest.raises(TaskExists):
        memory.learn("task 0", bars(1), QUICK)
    with pytest.raises(NothingLearned):
        Memory.create(definition()).predict(bars(0).images[:1])


def test_many_threads_may_predict_and_explain_at_once() -> None:
    memory = learned("cnn", tasks=2)
    images = bars(1).images[:16]
    expected, failures = memory.observe(images).logits("task 0"), []

    def ask() -> None:
        for turn in range(6):
            memory.explain(images[turn])
            if not torch.equal(memory.observe(images).logits("task 0"), expected):
                failures.append(turn)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_restoring_shares_equal_engrams_and_needs_no_sums() -> None:
    memory = learned("cnn", tasks=1)
    older = restore(*_arguments(memory))
    memory.learn("task 1", bars(1), QUICK)
    definition_, engrams, recogniser, _, budget = _arguments(memory)
    newer = restore(definition_, engrams, recogniser, None, budget, reuse=older)
    assert network_of(newer).stack[0] is network_of(older).stack[0]
    assert compare(certify(memory), certify(newer)) == []


def _arguments(memory: Memory):  # type: ignore[no-untyped-def]  # the five arguments of restore, in order
    parts = dump(memory)
    return parts.definition, parts.engrams, parts.recogniser, parts.kept, parts.budget


def test_a_saved_model_goes_on_learning_as_if_it_had_never_been_saved(tmp_path: Path) -> None:
    memory = learned("cnn", tasks=1)
    memory.save(tmp_path)
    again = Memory.load(tmp_path)
    memory.learn("task 1", bars(1), QUICK)
    again.learn("task 1", bars(1), QUICK)
    assert dump(again) == dump(memory)


@pytest.mark.parametrize(
    "name", ["manifest.json", "engram-0000.safetensors", "engram-0001.safetensors", "kept-0001.safetensors"]
)
@pytest.mark.parametrize("harm", ["missing", "flipped", "cut"])
def test_damaged_files_are_named(name: str, harm: str, tmp_path: Path) -> None:
    learned("mlp", tasks=1).save(tmp_path)
    path = tmp_path / name
    data = bytearray(path.read_bytes())
    if harm == "missing":
        path.unlink()
    else:
        data[len(data) // 2] ^= 0xFF
        path.write_bytes(data if harm == "flipped" else data[: len(data) // 2])
    with pytest.raises(DamagedSnapshot, match=name):
        Memory.load(tmp_path)


def test_files_of_a_later_format_are_refused(tmp_path: Path) -> None:
    memory = learned("mlp", tasks=1)
    memory.save(tmp_path)
    manifest = tmp_path / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises((UnsupportedFormat, DamagedSnapshot), match="format 2"):
        Memory.load(tmp_path)


@pytest.mark.parametrize("data", [b"", b"\0" * 8, b"\xff" * 64, b"{}", pack("sums", {}, {"x": torch.zeros(1)})])
def test_bytes_that_are_no_engram_are_refused(data: bytes) -> None:
    with pytest.raises(DamagedSnapshot):
        unpack("engram", data)


def test_equal_content_has_one_hash() -> None:
    tensors = {"b": torch.ones(3), "a": torch.zeros(2, 2)}
    first = pack("engram", {"task": "x", "classes": ["1", "2"]}, tensors)
    second = pack("engram", {"classes": ["1", "2"], "task": "x"}, dict(reversed(tensors.items())))
    assert content_hash(first) == content_hash(second)


def test_certificates_survive_json_and_notice_a_change() -> None:
    memory = learned("mlp", tasks=2)
    certificate = certify(memory)
    assert Certificate.from_dict(certificate.to_dict()) == certificate
    with torch.no_grad():
        network_of(memory).stack[0].head.bias.add_(1e-7)
    assert compare(certificate, certify(memory)) == ["task 0"]


def test_a_certificate_tells_of_classes_and_those_of_earlier_releases_do_not() -> None:
    figures: dict[str, object] = {"balanced_accuracy": 0.5, "per_class": {"ok": {"held_out": 99, "recall": 1.0}}}
    proof = certify(learned("mlp", tasks=1), classes={"task 0": figures})
    written = json.loads(json.dumps(proof.to_dict()))
    assert written["classes"] == {"task 0": figures}
    assert Certificate.from_dict(written) == proof
    del written["classes"]
    assert Certificate.from_dict(written).classes == {}
    wrong: tuple[object, ...] = ([], {"task 0": 0.5})
    for harmed in wrong:
        with pytest.raises(DamagedSnapshot, match="classes"):
            Certificate.from_dict({**written, "classes": harmed})


def test_every_error_has_a_code_of_its_own() -> None:
    def below(kind: type[EngramError]) -> list[type[EngramError]]:
        return [kind] + [error for child in kind.__subclasses__() for error in below(child)]

    kinds = below(EngramError)
    assert len({kind.code for kind in kinds}) == len(kinds)


@pytest.mark.parametrize(("gate", "error"), [("min_accuracy", AccuracyTooLow), ("min_recognised", RecognitionTooLow)])
def test_a_task_that_is_learned_too_badly_is_not_kept(gate: str, error: type[EngramError]) -> None:
    memory = learned("cnn", tasks=2)
    before = dump(memory)
    first = bars(0)
    shuffled = first.labels[torch.randperm(len(first), generator=torch.Generator().manual_seed(0))]
    mixed = Examples(first.images, shuffled, ("one", "other"))  # names of their own: else to know them is enough
    with pytest.raises(error, match="asked for"):
        memory.learn("the first once more, its labels shuffled", mixed, QUICK.model_copy(update={gate: 0.95}))
    assert dump(memory) == before


@pytest.mark.parametrize(
    ("field", "harmed"),
    [
        ("engrams", '[{"a": "b"}]'),
        ("engrams", '"engram-0000.safetensors"'),
        ("engrams", '["\\u0000"]'),
        ("kept", "[null]"),
        ("sha256", "[1]"),
        ("sha256", "7"),
        ("budget", '{"dense1": Infinity}'),
        ("tasks", "[" * 100_000),
    ],
)
def test_a_manifest_that_lists_no_files_is_damaged(tmp_path: Path, field: str, harmed: str) -> None:
    learned("mlp", 1).save(tmp_path)
    manifest = tmp_path / "manifest.json"
    document = json.loads(manifest.read_text()) | {field: "HARMED"}
    manifest.write_text(json.dumps(document).replace('"HARMED"', harmed))
    with pytest.raises(DamagedSnapshot):
        Memory.load(tmp_path)
