"""SHA-256 digests of everything that each method stores after learning from fixed seeds.

A learned model must not depend on how the code is arranged. `python -m testing.data.learned_digests` prints the digests
of this machine; the recorded ones are in `tests/engram/files/learned-digests.json`.
"""

from __future__ import annotations

import json
import platform
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from engram import CommonsDefinition, Definition, Examples, InputShape, LearnOptions, Memory

SIZE = 12
QUICK: dict[str, Any] = {
    "epochs": 2,
    "rounds": 2,
    "recovery_epochs": 1,
    "tolerance": 0.1,
    "augment": "none",
    "batch_size": 16,
    "seed": 5,
}

MODELS: dict[str, dict[str, Any]] = {
    "eidetic-mlp": {"backbone": "mlp", "width": 0.1},
    "eidetic-cnn": {"backbone": "cnn", "width": 0.5},
    "eidetic-resnet18": {"backbone": "resnet18", "width": 0.07},
    "eidetic-learned-commons": {
        "backbone": "cnn",
        "width": 0.5,
        "channels": 3,
        "commons": {"kind": "learned", "features": 128, "patch": 5},
    },
    "eidetic-router": {"backbone": "cnn", "width": 0.5, "retention": "data"},
    "eidetic-taylor": {"backbone": "cnn", "width": 0.5, "options": {"score": "taylor", "optimiser": "sgd"}},
    "eidetic-lrp": {"backbone": "cnn", "width": 0.5, "options": {"score": "lrp", "augment": "shift"}},
    "rnf-mlp": {"method": "rnf", "backbone": "mlp", "width": 0.1},
    "rnf-cnn": {"method": "rnf", "backbone": "cnn", "width": 0.5},
    "rnf-elastic": {
        "method": "rnf",
        "backbone": "mlp",
        "width": 0.1,
        "settings": {"elasticity": 0.2, "resistance": False, "initial_weights": "uniform"},
    },
    "rerelrp-blocks": {
        "method": "rerelrp",
        "backbone": "cnn",
        "width": 0.5,
        "settings": {"trees": 8, "exemplars": 24},
    },
    "rerelrp-published": {
        "method": "rerelrp",
        "backbone": "mlp",
        "width": 0.1,
        "settings": {"preset": "paper", "trees": 8, "exemplars": 24},
    },
    "rmn-mlp": {"method": "rmn", "backbone": "mlp", "width": 0.1},
    "rmn-cnn": {"method": "rmn", "backbone": "cnn", "width": 0.5},
    "rmn-published": {"method": "rmn", "backbone": "mlp", "width": 0.1, "settings": {"preset": "paper"}},
    "sharc-gaussian": {"method": "sharc", "retention": "features", "settings": {"memory_bytes": 16384}},
    "sharc-hopfield": {
        "method": "sharc",
        "retention": "features",
        "settings": {"preset": "paper_task", "memory_bytes": 16384},
    },
    "sharc-own-heads": {
        "method": "sharc",
        "retention": "features",
        "settings": {"heads": "own", "recognise": "head", "saliency": "random", "recall": "none"},
    },
    "staged-mlp": {"recipe": 3, "backbone": "mlp", "width": 0.1},
    "staged-cnn": {"recipe": 3, "backbone": "cnn", "width": 0.5},
    "staged-mirror": {
        "recipe": 3,
        "backbone": "resnet18",
        "width": 0.07,
        "channels": 3,
        "commons": {"features": 128, "patch": 5, "mirror": True, "grid": 2},
        "settings": {"reads": "commons"},
    },
    "staged-learning-2": {"recipe": 3, "learning": 2, "backbone": "cnn", "width": 0.5},
    "staged-learning-3": {"recipe": 3, "learning": 3, "backbone": "cnn", "width": 0.5, "channels": 3},
    "staged-all": {"recipe": 3, "backbone": "cnn", "width": 0.5, "settings": {"reads": "all"}},
}
"""One model of every kind with stored state of its own; `channels` and `options` are not part of a definition."""


def bars(task: int, channels: int = 1, count: int = 40) -> Examples:
    """`count` noisy (channels, 12, 12) images of each of two classes: a bright bar whose position depends on the
    class."""
    generator = torch.Generator().manual_seed(1000 + task)
    images = torch.randint(0, 60, (count * 2, channels, SIZE, SIZE), generator=generator, dtype=torch.uint8)
    labels = torch.arange(count * 2) % 2
    for image, label in zip(images, labels.tolist(), strict=True):
        place = 2 + 4 * label + task % 2
        lines = image[:, place : place + 2, :] if task % 3 else image[:, :, place : place + 2]
        lines += 120 + 15 * (task % 4)
    return Examples(images, labels, (f"task {task} low", f"task {task} high"))


def digests_of(name: str) -> dict[str, str]:
    """The SHA-256 of every file of one of `MODELS` after three tasks, by the file's name."""
    given = dict(MODELS[name])
    channels, options = given.pop("channels", 1), LearnOptions.model_validate(QUICK | given.pop("options", {}))
    shape = InputShape(channels=channels, height=SIZE, width=SIZE)
    commons = CommonsDefinition.model_validate(given.pop("commons", {"features": 128, "patch": 5}))
    fields = {"backbone": "cnn", "width": 0.5, "budget": 4.0, "seed": 7, **given}
    memory = Memory.create(Definition.load({"input": shape, "commons": commons, **fields}))
    for task in range(3):
        memory.learn(f"task {task}", bars(task, channels), options)
    with tempfile.TemporaryDirectory() as folder:
        memory.save(folder)
        manifest = json.loads((Path(folder) / "manifest.json").read_text())
    return {str(file): str(digest) for file, digest in sorted(manifest["sha256"].items())}


def machine(*, numbers: bool = False) -> str:
    """Description of the machine as far as the digests depend on it.

    Parameters
    ----------
    numbers
        Whether it has those of the processor's model, without which the name may be that of several.
    """
    model = ""
    if sys.platform == "linux":
        rows = (line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines())
        about = {name.strip(): value.strip() for name, _, value in rows}
        names = ("model name", *(("cpu family", "model", "stepping") if numbers else ()))
        model = " ".join(about.get(name, "") for name in names)
    capability = torch.backends.cpu.get_cpu_capability()
    return f"torch {torch.__version__}, 1 thread, {capability}, {platform.machine()} {model}"


def main() -> None:
    """Print the digests of this machine as JSON."""
    torch.set_num_threads(1)
    print(json.dumps({machine(numbers=True): {name: digests_of(name) for name in MODELS}}, indent=1, sort_keys=True))


if __name__ == "__main__":
    main()
