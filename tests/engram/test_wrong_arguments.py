"""Wrong arguments to the public interface, each refused by its documented error.

The same cases are run by `python -O` too, where asserts are off.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import cache
from typing import Any, cast

import pytest
import torch

from engram import Definition, Examples, LearnOptions, Memory
from engram.certificate import Certificate, certify, probe_batch
from engram.checkpointing.tensors import pack
from engram.data.examples import split
from engram.errors import (
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
from engram.memory import dump
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


def certificate(**changes: object) -> Certificate:
    return Certificate.from_dict({**certify(memory()).to_dict(), **changes})


def with_labels(*labels: int) -> Examples:
    return Examples(IMAGES, torch.tensor(labels), NAMES)


CASES: dict[str, tuple[Callable[[], object], type[EngramError], str]] = {
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
    "a batch to explain": (lambda: memory().explain(IMAGES), ImageError, r"\(1, 12, 12\), not uint8 \(4, 1"),
    "floats to explain": (lambda: memory().explain(IMAGES[0] / 255), ImageError, "not float32"),
    "an unknown task": (lambda: memory().predict(IMAGES, task="new"), UnknownTask, "new"),
    "an unknown label": (lambda: memory().explain(IMAGES[0], target="new"), UnknownLabel, "new"),
    "an unknown composite": (lambda: memory().explain(IMAGES[0], composite="new"), UnknownComposite, "new"),
    "no answers": (lambda: memory().predict(IMAGES, top_k=0), InputError, "at least 1"),
    "half a unit": (
        lambda: memory().raise_budget(cast(Any, {"dense1": 900.5})),
        InvalidDefinition,
        "whole number of units",
    ),
    "a budget in words": (lambda: memory().raise_budget(cast(Any, "more")), InvalidDefinition, "finite number"),
    "an endless budget": (lambda: memory().raise_budget(float("inf")), InvalidDefinition, "finite number"),
    "a device of no kind": (lambda: memory().to("abacus"), InputError, "abacus"),
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


def test_they_are_refused_without_asserts() -> None:
    done = subprocess.run([sys.executable, "-O", "-c", OPTIMISED], capture_output=True, text=True, timeout=240)
    assert done.stdout == f"{len(CASES)} refused\n", done.stderr


def test_what_is_right_is_not_refused() -> None:
    assert len(memory().predict(IMAGES, top_k=99)) == 4
    assert memory().predict(IMAGES[:0]) == []
    assert memory().explain(IMAGES[0]).relevance.shape == (1, SIZE, SIZE)
    assert memory().to(torch.device("cpu")).to("cpu") is memory()
    assert isinstance(memory().definition, Definition)
