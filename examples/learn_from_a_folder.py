"""Learning from a folder of images, one task after another, without a service.

    python examples/learn_from_a_folder.py FOLDER

`FOLDER/images/<task>/<class>/<image>` is read, each `<task>` is learned in turn, and the model is written to
`FOLDER/model`. Where `FOLDER/images` is missing, handwritten digits that come with scikit-learn are written there
first. The end of the output shows that the saved model answers the first task with the bytes that it answered before
the second task was learned.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from PIL import Image
from sklearn.datasets import load_digits

from engram import Definition, Examples, InputShape, Memory
from engram.data.images import decode

DEFINITION = Definition(backbone="cnn", input=InputShape(channels=1, height=28, width=28))
TASKS = {"zero-one": ("zero", "one"), "two-three": ("two", "three")}


def write_digits(folder: Path) -> None:
    """Write the digits 0 to 3 as PNG files, a folder for each task and in it one for each class."""
    images, labels = load_digits(return_X_y=True)
    digit = 0
    for task, classes in TASKS.items():
        for name in classes:
            target = folder / task / name
            target.mkdir(parents=True)
            for number, pixels in enumerate(images[labels == digit]):
                grey = (pixels.reshape(8, 8) * (255 / 16)).round().astype("uint8")
                Image.fromarray(grey).resize((28, 28)).save(target / f"{number:03}.png")
            digit += 1


def read_task(folder: Path) -> Examples:
    """The images under `folder/<class>/` as tensors of the model's shape."""
    classes = tuple(sorted(entry.name for entry in folder.iterdir() if entry.is_dir()))
    images, labels = [], []
    for label, name in enumerate(classes):
        for path in sorted((folder / name).iterdir()):
            images.append(decode(path.read_bytes(), DEFINITION.input, decoder=DEFINITION.decoder))
            labels.append(label)
    return Examples(torch.stack(images), torch.tensor(labels), classes)


def main() -> None:
    parser = argparse.ArgumentParser(description="Learn every task of a folder of images.")
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    if not (folder / "images").exists():
        write_digits(folder / "images")

    memory = Memory.create(DEFINITION)
    tasks = sorted(entry for entry in (folder / "images").iterdir() if entry.is_dir())
    first = read_task(tasks[0])
    answered = b""
    for task in tasks:
        examples = read_task(task)
        report = memory.learn(task.name, examples)
        print(f"learned {task.name}: {len(examples)} images, held-out accuracy {report.accuracy['kept']:.1%}")
        if not answered:
            answered = memory.observe(first.images[:32]).logits(task.name).numpy().tobytes()
    memory.save(folder / "model")

    loaded = Memory.load(folder / "model")
    now = loaded.observe(first.images[:32]).logits(tasks[0].name).numpy().tobytes()
    print(f"the saved model answers {tasks[0].name} with the same bytes: {'yes' if now == answered else 'NO'}")
    for task in tasks:
        examples = read_task(task)
        answer = loaded.predict(examples.images[:1])[0]
        print(f"an image of {task.name}/{examples.classes[0]} is answered: {answer.task}, {answer.label}")


if __name__ == "__main__":
    main()
