"""Adding one class a week to a model, and checking each time that the earlier answers are the same.

    python examples/add_a_class_a_week.py [--weeks 4]

A camera looks at a belt, and every week the belt carries a new kind of part: here, a new digit of those that come with
scikit-learn. A task has at least two classes, so each week's task is the new part and the empty belt. No image of an
earlier week is used again. Each week shows how many images of the new part the model calls unknown before it learns
them, whether every earlier task still gives the same bytes, and how many held-out images of all weeks are answered
right without the task being given.
"""

from __future__ import annotations

import argparse

import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn.functional import interpolate

from engram import Definition, Examples, InputShape, LearnOptions, Memory

SIDE = 28
EMPTY = "empty belt"
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
HELD_OUT = 40
"""Images of each week that nothing is learned from."""


def parts(digit: int) -> Tensor:
    """All images (N, 1, 28, 28) uint8 of one digit."""
    images, labels = load_digits(return_X_y=True)
    small = torch.from_numpy(images[labels == digit]).float().reshape(-1, 1, 8, 8) * (255 / 16)
    return interpolate(small, (SIDE, SIDE), mode="bilinear").round().to(torch.uint8)


def empty_belt(count: int, seed: int) -> Tensor:
    """Images (count, 1, 28, 28) uint8 of dust on a dark belt."""
    generator = torch.Generator().manual_seed(seed)
    dust = torch.rand(count, 1, SIDE, SIDE, generator=generator)
    return (dust**8 * 160).to(torch.uint8)


def logits(memory: Memory, images: dict[str, Tensor]) -> dict[str, bytes]:
    """What each learned task answers to its own held-out images, as bytes."""
    return {name: memory.observe(images[name]).logits(name).numpy().tobytes() for name in images}


def main() -> None:
    parser = argparse.ArgumentParser(description="Add a class a week.")
    parser.add_argument("--weeks", type=int, default=4, choices=range(1, 11))
    weeks: int = parser.parse_args().weeks

    memory = Memory.create(Definition(backbone="cnn", input=InputShape(channels=1, height=SIDE, width=SIDE)))
    options = LearnOptions(min_accuracy=0.9)  # below it learning fails, and the model is as it was
    held_out: dict[str, Tensor] = {}
    answered: dict[str, bytes] = {}
    for week, name in enumerate(DIGITS[:weeks], 1):
        new = parts(week - 1)
        unseen, new = new[:HELD_OUT], new[HELD_OUT:]
        if week > 1:
            unknown = sum(answer.known is False for answer in memory.predict(unseen))
            print(f"week {week}: {unknown} of {len(unseen)} images of {name!r} are unknown before it is learned")
        images = torch.cat([new, empty_belt(len(new), week)])
        labels = (torch.arange(len(images)) >= len(new)).long()
        report = memory.learn(name, Examples(images, labels, (name, EMPTY)), options)
        same = all(logits(memory, held_out)[task] == before for task, before in answered.items())
        held_out[name] = unseen
        answered = logits(memory, held_out)
        right = sum(answer.label == task for task, seen in held_out.items() for answer in memory.predict(seen))
        print(
            f"week {week}: learned {name!r}, held-out accuracy {report.accuracy['kept']:.1%}; "
            f"earlier answers {'identical' if same else 'DIFFERENT'}; "
            f"right without a task given: {right} of {HELD_OUT * week}"
        )
    for layer in memory.capacity():
        print(f"layer {layer.layer}: {layer.free} of {layer.units} units are free")


if __name__ == "__main__":
    main()
