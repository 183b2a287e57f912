"""Tests of wrong arguments to the public interface, each refused by its documented error.

The same cases are run by `python -O` too, where asserts are off.
"""

from __future__ import annotations

import io
import subprocess
import sys
import zipfile
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import pytest
import torch
from PIL import Image

from engram import Definition, Examples, InputShape, LearnOptions, Memory
from engram.certificate import Certificate, certify, compare, digest, probe_batch
from engram.checkpointing.tensors import pack
from engram.data import archives
from engram.data.augmentation import augmented
from engram.data.examples import split
from engram.data.images import decode
from engram.errors import (
    AnswersOnly,
    DamagedSnapshot,
    EngramError,
    ExamplesError,
    ImageError,
    InputError,
    InvalidDefinition,
    InvalidOptions,
    UnknownComposite,
    UnknownLabel,
    UnknownTask,
)
from engram.memory import dump, restore
from engram.methods.eidetic.router import load_images
from engram.streams import Stream
from testing.data.patterns import QUICK, SIZE, bars, definition, learned

ANYTHING: Any = object()
IMAGES = bars(0).images[:4]
LABELS = torch.tensor([0, 1, 0, 1])
NAMES = ("a", "b")


@cache
def memory() -> Memory:
    """A model of one task, that no refused call may change."""
    return learned("mlp", tasks=1)


@cache
def forgetful() -> Memory:
    """A model whose certificate has the answers of the day on which a task was learned."""
    return learned("mlp", tasks=1, method="rnf", settings={"elasticity": 0.2, "resistance": False})


def stream() -> Stream:
    return Stream(Memory.create(definition("mlp", method="rmn")))


METHODS: dict[str, dict[str, object]] = {
    "eidetic": {"backbone": "mlp"},
    "rnf": {"backbone": "mlp", "settings": {"elasticity": 0.2, "resistance": False}},
    "rerelrp": {"backbone": "mlp", "settings": {"trees": 8, "exemplars": 24}},
    "rmn": {"backbone": "mlp"},
    "sharc": {"backbone": "cnn", "retention": "features"},
}
"""Every method, with the fields of a definition that learns by it quickly."""


@cache
def answering(method: str) -> Memory:
    """A model of one task that was restored for answering alone."""
    parts = dump(learned(tasks=1, method=method, **cast(Any, METHODS[method])))
    return restore(parts.definition, parts.engrams, parts.recogniser, None, parts.budget)


def saved(memory: Memory) -> None:
    with TemporaryDirectory() as folder:
        memory.save(folder)


def certificate(**changes: object) -> Certificate:
    return Certificate.from_dict({**certify(memory()).to_dict(), **changes})


def with_labels(*labels: int) -> Examples:
    return Examples(IMAGES, torch.tensor(labels), NAMES)


CASES: dict[str, tuple[Callable[[], object], type[EngramError], str]] = {
    "classes as a string": (lambda: Examples(IMAGES, LABELS, cast(Any, "ab")), ExamplesError, "not of type str"),
    "classes as a set": (lambda: Examples(IMAGES, LABELS, cast(Any, {"a", "b"})), ExamplesError, "not of type set"),
    "no classes": (lambda: Examples(IMAGES, LABELS, cast(Any, None)), ExamplesError, "not of type NoneType"),
    "labels as a string": (lambda: Examples(IMAGES, cast(Any, "abab"), NAMES), ExamplesError, "not str"),
    "images that are no tensor": (lambda: Examples(ANYTHING, LABELS, NAMES), ExamplesError, "not object"),
    "one image": (lambda: Examples(IMAGES[0], LABELS, NAMES), ExamplesError, r"\(N, C, H, W\)"),
    "images of floats": (lambda: Examples(IMAGES / 255, LABELS, NAMES), ExamplesError, "float32"),
    "labels that are no tensor": (lambda: Examples(IMAGES, cast(Any, [0, 1, 0, 1]), NAMES), ExamplesError, "not list"),
    "labels of bytes": (lambda: Examples(IMAGES, LABELS.to(torch.uint8), NAMES), ExamplesError, "int64"),
    "too few labels": (lambda: Examples(IMAGES, LABELS[:3], NAMES), ExamplesError, "one for each image"),
    "classes by number": (lambda: Examples(IMAGES, LABELS, cast(Any, (0, 1))), ExamplesError, "strings"),
    "held out by number": (lambda: Examples(IMAGES, LABELS, NAMES, cast(Any, 0.1)), ExamplesError, "not float"),
    "a negative label": (lambda: with_labels(0, 1, 0, -1).counts(), ExamplesError, "between 0 and 1"),
    "a label too many": (lambda: memory().learn("new", with_labels(0, 1, 0, 2), QUICK), ExamplesError, "between 0 and"),
    "a held-out share in words": (lambda: split(bars(0), cast(Any, "half"), 0), InvalidOptions, "between 0 and 1"),
    "a seed in words": (lambda: split(bars(0), 0.5, cast(Any, "seed")), InvalidOptions, "whole number"),
    "a tensor to split": (lambda: split(cast(Any, IMAGES), 0.5, 0), ExamplesError, "Examples, not Tensor"),
    "an unknown augmentation": (
        lambda: augmented(IMAGES / 255, "turn", torch.Generator()),
        InvalidOptions,
        "none, shift, shift",
    ),
    "a whole as held-out share": (lambda: split(bars(0), 1.0, 0), InvalidOptions, "between 0 and 1"),
    "options out of range": (
        lambda: memory().learn("new", bars(1), QUICK.model_copy(update={"held_out": 2.0})),
        InvalidOptions,
        "held-out share",
    ),
    "options as a dictionary": (
        lambda: memory().learn("new", bars(1), cast(Any, {"epochs": 1})),
        InvalidOptions,
        "LearnOptions, not dict",
    ),
    "a definition as a dictionary": (lambda: Memory.create(cast(Any, {})), InvalidDefinition, "Definition, not dict"),
    "progress as a list": (
        lambda: memory().learn("new", bars(1), QUICK, progress=cast(Any, [])),
        InvalidOptions,
        "progress is a function",
    ),
    "checkpoints as a path": (
        lambda: memory().learn("new", bars(1), QUICK, checkpoints=cast(Any, "here")),
        InvalidOptions,
        "Checkpoints, not str",
    ),
    "a definition as a method": (lambda: Memory(cast(Any, definition("mlp"))), InvalidDefinition, "not Definition"),
    "a definition to restore": (lambda: restore(cast(Any, {}), [], b"", None, {}), InvalidDefinition, "not dict"),
    "a model to reuse": (
        lambda: restore(definition("mlp"), [], b"", None, {}, cast(Any, "model")),
        InputError,
        "Memory, not str",
    ),
    "nothing to dump": (lambda: dump(cast(Any, None)), InputError, "Memory, not NoneType"),
    "no folder to save to": (lambda: memory().save(cast(Any, None)), InputError, "path, not NoneType"),
    "no folder to load from": (lambda: Memory.load(cast(Any, None)), InputError, "path, not NoneType"),
    "a task by number": (lambda: memory().learn(cast(Any, 7), bars(1), QUICK), InputError, "str, not int"),
    "a tensor as examples": (lambda: memory().learn("new", cast(Any, IMAGES), QUICK), ExamplesError, "not Tensor"),
    "examples in colour": (
        lambda: memory().learn("new", bars(0, channels=3), QUICK),
        ExamplesError,
        r"engram\.data\.images\.decode",
    ),
    "one image to predict": (lambda: memory().predict(IMAGES[0]), ImageError, r"\(B, 1, 12, 12\), not uint8 \(1, 12"),
    "floats to predict": (lambda: memory().predict(IMAGES / 255), ImageError, "not float32"),
    "colour to observe": (lambda: memory().observe(bars(0, channels=3).images), ImageError, r"\(96, 3, 12, 12\)"),
    "another size to observe": (lambda: memory().observe(IMAGES[..., 1:]), ImageError, r"\(4, 1, 12, 11\)"),
    "an array to observe": (lambda: memory().observe(cast(Any, IMAGES.numpy())), ImageError, "not a ndarray"),
    "nothing to predict": (lambda: memory().predict(cast(Any, None)), ImageError, "not a NoneType"),
    "a list to observe": (lambda: memory().observe(cast(Any, [IMAGES])), ImageError, "not a list"),
    "nothing to explain": (lambda: memory().explain(cast(Any, None)), ImageError, "not a NoneType"),
    "a task to predict by number": (lambda: memory().predict(IMAGES, task=cast(Any, 0)), UnknownTask, "0"),
    "a label by number": (lambda: memory().explain(IMAGES[0], target=cast(Any, 0)), UnknownLabel, "0"),
    "a composite by number": (lambda: memory().explain(IMAGES[0], composite=cast(Any, 1)), UnknownComposite, "1"),
    "an unknown style": (
        lambda: memory().explain(IMAGES[0]).png(style="nonsense"),
        InputError,
        "'nonsense'; there are heatmap, overlay",
    ),
    "a batch to explain": (lambda: memory().explain(IMAGES), ImageError, r"\(1, 12, 12\), not uint8 \(4, 1"),
    "floats to explain": (lambda: memory().explain(IMAGES[0] / 255), ImageError, "not float32"),
    "an unknown task": (lambda: memory().predict(IMAGES, task="new"), UnknownTask, "new"),
    "an unknown label": (lambda: memory().explain(IMAGES[0], target="new"), UnknownLabel, "new"),
    "an unknown composite": (lambda: memory().explain(IMAGES[0], composite="new"), UnknownComposite, "new"),
    "no answers": (lambda: memory().predict(IMAGES, top_k=0), InputError, "at least 1"),
    "a text as the number of answers": (
        lambda: memory().predict(IMAGES, top_k=cast(Any, "3")),
        InputError,
        "whole number, not '3'",
    ),
    "half an answer": (lambda: memory().predict(IMAGES, top_k=cast(Any, 1.5)), InputError, "whole number, not 1.5"),
    "true answers": (lambda: memory().predict(IMAGES, top_k=True), InputError, "whole number, not True"),
    "a layer by number": (lambda: memory().raise_budget(cast(Any, {1: 1})), InvalidDefinition, "by strings, not 1"),
    "a budget that is no list": (lambda: memory().raise_budget(cast(Any, None)), InvalidDefinition, "finite number"),
    "a budget beyond floats": (lambda: memory().raise_budget(1e308), InvalidDefinition, "finite number"),
    "a budget of too many digits": (lambda: memory().raise_budget(10**400), InvalidDefinition, "finite number"),
    "half a unit": (
        lambda: memory().raise_budget(cast(Any, {"dense1": 900.5})),
        InvalidDefinition,
        "whole number of units",
    ),
    "a budget in words": (lambda: memory().raise_budget(cast(Any, "more")), InvalidDefinition, "finite number"),
    "an endless budget": (lambda: memory().raise_budget(float("inf")), InvalidDefinition, "finite number"),
    "a device of no kind": (lambda: memory().to("abacus"), InputError, "abacus"),
    "a device that is not built in": (lambda: memory().to("ipu"), InputError, "ipu"),
    "a device without values": (lambda: memory().to("meta"), InputError, "holds no values"),
    "a GPU too many": (lambda: memory().to("cuda:99"), InputError, "CUDA|none of the GPUs"),
    "no device": (lambda: memory().to(cast(Any, None)), InputError, "None names no device"),
    "nothing to certify": (lambda: certify(cast(Any, None)), InputError, "Memory, not NoneType"),
    "routing in words": (lambda: certify(memory(), routing=cast(Any, "well")), InputError, "Mapping, not str"),
    "answers in words": (
        lambda: certify(forgetful(), learned={"task 0": cast(Any, 5)}),
        DamagedSnapshot,
        "are a list",
    ),
    "nothing to compare": (lambda: compare(cast(Any, None), certificate()), InputError, "Certificate, not NoneType"),
    "a digest of nothing": (lambda: digest(cast(Any, None)), InputError, "Tensor, not NoneType"),
    "a certificate as a list": (lambda: Certificate.from_dict(cast(Any, [])), DamagedSnapshot, "Mapping, not list"),
    "a certificate of tasks by number": (lambda: certificate(tasks=[1]), DamagedSnapshot, "is an object"),
    "a certificate of a task without a name": (
        lambda: certificate(tasks=[{"task": [], "logits_sha256": ""}]),
        DamagedSnapshot,
        "has a name",
    ),
    "a certificate of a number": (
        lambda: certificate(tasks=[{"task": "a", "logits_sha256": 1}]),
        DamagedSnapshot,
        "digest for task 'a'",
    ),
    "a certificate of answers in words": (
        lambda: certificate(answers_when_learned={"a": "x"}),
        DamagedSnapshot,
        "lists the answers",
    ),
    "an archive by number": (lambda: archives.inspect(cast(Any, 5)), InputError, "path, not int"),
    "an archive with limits in words": (lambda: archives.inspect("x", cast(Any, "few")), InputError, "not str"),
    "an archive read to no shape": (lambda: archives.read("x", cast(Any, (1, 8, 8))), InputError, "not tuple"),
    "an archive read to a share in words": (
        lambda: archives.read("x", InputShape(channels=1, height=8, width=8), max_unreadable=cast(Any, "few")),
        InputError,
        "not of type str",
    ),
    "an image in words": (
        lambda: decode(cast(Any, "GIF89a"), InputShape(channels=1, height=8, width=8)),
        ImageError,
        "not of type str",
    ),
    "an image of no shape": (lambda: decode(b"GIF89a", cast(Any, None)), InputError, "InputShape, not NoneType"),
    "a shape in words": (lambda: probe_batch(cast(Any, "12 x 12")), InputError, "InputShape, not str"),
    "a certificate without a list": (lambda: certificate(tasks={}), DamagedSnapshot, "lists its tasks"),
    "a certificate of a place": (lambda: certificate(environment="here"), DamagedSnapshot, "environment"),
    "answers to other probes": (
        lambda: certify(forgetful(), learned={"task 0": [1, 2]}),
        DamagedSnapshot,
        "2 answers to 32",
    ),
    "kept images that are none": (
        lambda: load_images(pack("images", {"task": "a", "classes": ["x"]}, {"images": IMAGES[0], "labels": LABELS})),
        DamagedSnapshot,
        "N, C, H, W",
    ),
    "kept images without classes": (
        lambda: load_images(pack("images", {"task": "a", "classes": "x"}, {"images": IMAGES, "labels": LABELS})),
        DamagedSnapshot,
        "list of classes",
    ),
    "a stream of floats": (lambda: stream().see(IMAGES / 255, ["a", "b", "a", "b"]), ImageError, "not float32"),
    "a stream with too few labels": (lambda: stream().see(IMAGES, ["a"]), ExamplesError, "batch of 4 images"),
    "a stream with labels by number": (
        lambda: stream().see(IMAGES, cast(Any, [0, 1, 0, 1])),
        ExamplesError,
        "each a string",
    ),
    "a stream with options of another kind": (
        lambda: Stream(Memory.create(definition("mlp", method="rmn")), stream=cast(Any, LearnOptions())),
        InvalidOptions,
        "StreamOptions, not LearnOptions",
    ),
    **{
        f"{method} restored for answering, to {what}": (partial(call, method), AnswersOnly, "restored without")
        for method in METHODS
        for what, call in {
            "learn": lambda method: answering(method).learn("new", bars(1), QUICK),
            "save": lambda method: saved(answering(method)),
            "dump": lambda method: dump(answering(method)),
        }.items()
    },
}
"""What is called, which error it raises, and what that says."""


@pytest.mark.parametrize("case", CASES)
def test_wrong_arguments_raise_the_documented_error_and_change_nothing(case: str) -> None:
    call, error, words = CASES[case]
    before = dump(memory())
    with pytest.raises(error, match=words):
        call()
    assert dump(memory()) == before


OPTIMISED = """
from tests.engram.test_wrong_arguments import CASES

assert False, "asserts are off"
for case, (call, error, _) in CASES.items():
    try:
        call()
    except error:
        continue
    except Exception as other:
        raise SystemExit(f"{case}: {other!r}")
    raise SystemExit(f"{case}: nothing was raised")
print(len(CASES), "refused")
"""


@pytest.mark.slow
def test_they_are_refused_without_asserts() -> None:
    done = subprocess.run([sys.executable, "-O", "-c", OPTIMISED], capture_output=True, text=True, timeout=240)
    assert done.stdout == f"{len(CASES)} refused\n", done.stderr


def test_what_is_right_is_not_refused() -> None:
    assert len(memory().predict(IMAGES, top_k=99)) == 4
    assert memory().predict(IMAGES[:0]) == []
    assert memory().explain(IMAGES[0]).relevance.shape == (1, SIZE, SIZE)
    assert memory().to(torch.device("cpu")).to("cpu") is memory()
    assert isinstance(memory().definition, Definition)
    assert memory().predict(IMAGES, top_k=cast(Any, LABELS[1]))[0].top == memory().predict(IMAGES)[0].top


def test_classes_are_any_sequence_of_names() -> None:
    held_out = Examples(IMAGES, LABELS, cast(Any, ["a", "b"]))
    assert held_out.classes == NAMES
    Examples(IMAGES, LABELS, NAMES, held_out).check()


@pytest.mark.parametrize(("failure", "raised"), [(TypeError("no float64"), InputError), (MemoryError(), MemoryError)])
def test_a_model_that_cannot_be_moved_stays_where_it_was(
    monkeypatch: pytest.MonkeyPatch, failure: Exception, raised: type[Exception]
) -> None:
    moves: list[torch.device | str] = []

    def move(device: torch.device | str) -> None:
        moves.append(device)
        if len(moves) == 1:
            raise failure

    monkeypatch.setattr(memory().method, "to", move)
    with pytest.raises(raised):
        memory().to("cpu:0")
    assert moves == ["cpu:0", torch.device("cpu")]


@pytest.mark.parametrize("method", METHODS)
def test_a_model_restored_for_answering_answers(method: str) -> None:
    assert len(answering(method).predict(IMAGES)) == 4


def test_an_archive_may_be_named_by_a_string(tmp_path: Path) -> None:
    shape = InputShape(channels=1, height=8, width=8)
    picture = io.BytesIO()
    Image.new("L", (8, 8)).save(picture, "PNG")
    packed = tmp_path / "images.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        for name in ("a/1.png", "a/2.png", "b/1.png", "b/2.png"):
            archive.writestr(name, picture.getvalue())
    assert archives.inspect(str(packed)) == archives.inspect(packed)
    archives.probe(str(packed), shape)
    assert archives.read(str(packed), shape).examples.classes == NAMES
