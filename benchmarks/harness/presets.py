"""Presets of every benchmark and method: data sizes, definitions and training options.

`small` takes two processor cores minutes; `paper` is the whole data at the sizes of the method's own paper. A preset
consists of the fields common to all methods of a benchmark, overlaid by those of one method. Fields that are not named
keep the defaults of `Definition` and `LearnOptions`. Baselines use the preset of `eidetic`: the same network (as many
units in each layer as one task may try), the same optimiser and epochs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from benchmarks.harness.datasets import Sizes

Scale = Literal["small", "paper"]

METHODS = ("eidetic", "rnf", "rerelrp", "rmn", "sharc")
"""Methods of the product."""

BASELINES = {
    "naive": "fine-tuning on one task after another",
    "joint": "training on all tasks at once",
    "ewc": "Elastic Weight Consolidation (Kirkpatrick et al. 2017)",
    "lwf": "Learning without Forgetting (Li and Hoiem 2016)",
    "icarl": "iCaRL (Rebuffi et al. 2017)",
    "replay": "experience replay of stored images (Rolnick et al. 2019)",
}
"""Baselines, with a description of each."""


@dataclass(frozen=True)
class Preset:
    """Fields of `Definition` (without input, method and seed) and of `LearnOptions`."""

    definition: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)

    def over(self, below: Preset) -> Preset:
        """This preset overlaid on another; settings are merged."""
        settings = {**below.definition.get("settings", {}), **self.definition.get("settings", {})}
        definition = {**below.definition, **self.definition} | ({"settings": settings} if settings else {})
        return Preset(definition, {**below.options, **self.options})


SIZES: dict[tuple[str, Scale], Sizes] = {
    ("split_cifar100", "small"): Sizes(train=200, test=50),
    ("rnf_cifar", "small"): Sizes(train=200, test=50),
    ("rnf_digits", "small"): Sizes(train=500, test=200),
}
"""Number of images of each class; all of them for benchmarks that are not listed."""

_MLP_400 = {"backbone": "mlp", "depth": 2, "width": 400 / 256}
_MLP_1000 = {"backbone": "mlp", "depth": 2, "width": 1000 / 256}
_MLP_2000 = {"backbone": "mlp", "depth": 2, "width": 2000 / 256}
_MLP_100 = {"backbone": "mlp", "depth": 3, "width": 100 / 256}

_PLAIN = {"augment": "none", "label_smoothing": 0.0, "weight_decay": 0.0, "optimiser": "adam"}
"""Training options of the papers for digits."""

COMMON: dict[tuple[str, Scale], Preset] = {
    ("split_mnist", "small"): Preset({"backbone": "cnn"}),
    ("split_mnist", "paper"): Preset({"backbone": "cnn"}, {"epochs": 20, "patience": 5}),
    ("single_mnist", "small"): Preset({"backbone": "cnn"}),
    ("single_mnist", "paper"): Preset({"backbone": "cnn"}, {"epochs": 20, "patience": 5}),
    # A shifted image of permuted pixels is no image of that task, so nothing is augmented.
    ("permuted_mnist", "small"): Preset(
        {"backbone": "mlp", "budget": 16.0, "commons": {"features": 512}},
        {"augment": "none", "epochs": 12, "patience": 5, "tolerance": 0.0005, "rounds": 1},
    ),
    ("permuted_mnist", "paper"): Preset(_MLP_2000, {**_PLAIN, "batch_size": 256, "epochs": 30, "patience": 10}),
    # Pictures of things mean the same when mirrored: `augment` says it to training, `mirror` to the commons.
    ("split_cifar10", "small"): Preset(
        {"backbone": "cnn", "commons": {"mirror": True}}, {"epochs": 12, "patience": 4, "augment": "shift+flip"}
    ),
    ("split_cifar10", "paper"): Preset(
        {"backbone": "resnet18"}, {"epochs": 100, "patience": 20, "augment": "shift+flip"}
    ),
    ("split_cifar10_lite0", "small"): Preset({"backbone": "cnn"}, {"epochs": 12, "patience": 4, "augment": "none"}),
    ("split_cifar10_lite0", "paper"): Preset({"backbone": "cnn"}, {"epochs": 12, "patience": 4, "augment": "none"}),
    ("single_cifar10_lite0", "small"): Preset({"backbone": "cnn"}, {"epochs": 12, "patience": 4, "augment": "none"}),
    ("single_cifar10_lite0", "paper"): Preset({"backbone": "cnn"}, {"epochs": 12, "patience": 4, "augment": "none"}),
    ("split_cifar100", "small"): Preset(
        {"backbone": "cnn", "width": 2.0, "budget": 16.0}, {"epochs": 15, "augment": "shift+flip"}
    ),
    ("split_cifar100", "paper"): Preset(
        {"backbone": "resnet18", "budget": 16.0}, {"epochs": 100, "patience": 20, "augment": "shift+flip"}
    ),
    ("rnf_cifar", "small"): Preset({"backbone": "cnn", "width": 2.0}, {"epochs": 15, "augment": "shift+flip"}),
    ("rnf_cifar", "paper"): Preset({"backbone": "resnet18"}, {"epochs": 60, "patience": 20, "augment": "shift+flip"}),
    # Neither a digit nor permuted pixels may be turned or shifted.
    ("rnf_digits", "small"): Preset({"backbone": "cnn"}, {"epochs": 10, "augment": "none"}),
    ("rnf_digits", "paper"): Preset({"backbone": "resnet18"}, {"epochs": 60, "patience": 20, "augment": "none"}),
}
"""Presets common to all methods of a benchmark."""

_PUBLISHED = {"settings": {"preset": "paper"}}
"""The method as published; at `small`, methods keep their defaults, which are exact where possible."""

_AS_PYTORCH = {"preset": "paper", "initial_weights": "uniform"}
"""RNF's paper specifies neither the initial weights nor a schedule: PyTorch's weights, and a constant rate."""

_REPLAYED = {"retention": "features"}

_VGG = {"backbone": "cnn", "depth": 4, "width": 2.0}
"""About the VGG-11 of ReReLRP, with a budget of 4."""

_STEPWISE = {"tolerance": 0.01, "rounds": 1, "recovery_epochs": 0}

OVER_NETWORKS = ("split_cifar10_lite0", "single_cifar10_lite0")
"""Benchmarks whose models read the features of a network."""


def _lite0(**learned: str) -> Preset:
    """A model over EfficientNet-Lite0, beside filters that are learned."""
    network = {"kind": "pretrained", "backbone": "lite0", "size": 128, "features": 4096}
    return Preset({"backbone": "adapter", "commons": [network, {"kind": "learned", "mirror": True, **learned}]})


_LITE0 = _lite0()
_LITE0_SINGLE = _lite0(dictionary="dead_leaves")
"""The first task's single class shows too little to learn filters from."""

OF_METHOD: dict[tuple[str, Scale, str], Preset] = {
    # EideticNet, section 4: two layers of 2,000 for all ten tasks together, Taylor scores, 0.1 % tolerance.
    ("permuted_mnist", "paper", "eidetic"): Preset(
        {"budget": 1.0}, {"learning_rate": 2e-3, "score": "taylor", "tolerance": 0.001, "recovery_epochs": 5}
    ),
    ("split_cifar10_lite0", "small", "eidetic"): _LITE0,
    ("split_cifar10_lite0", "paper", "eidetic"): _LITE0,
    ("single_cifar10_lite0", "small", "eidetic"): _LITE0_SINGLE,
    ("single_cifar10_lite0", "paper", "eidetic"): _LITE0_SINGLE,
    # RNF, appendix A: two layers of 400 (1,000 where permuted) for all tasks together, 4 (10) epochs of Adam.
    ("split_mnist", "small", "rnf"): Preset(
        {**_MLP_400, "budget": 2.0}, {**_PLAIN, "epochs": 4, "learning_rate": 1e-3}
    ),
    ("split_mnist", "paper", "rnf"): Preset(
        {**_MLP_400, "settings": _AS_PYTORCH, "budget": 1.0},
        {**_PLAIN, "schedule": "constant", "epochs": 4, "patience": 4, "learning_rate": 1e-3},
    ),
    ("permuted_mnist", "paper", "rnf"): Preset(
        {**_MLP_1000, "settings": _AS_PYTORCH, "budget": 1.0},
        {**_PLAIN, "schedule": "constant", "batch_size": 128, "epochs": 10, "patience": 10, "learning_rate": 1e-4},
    ),
    ("split_cifar10", "paper", "rnf"): Preset(_PUBLISHED),
    ("split_cifar100", "paper", "rnf"): Preset(_PUBLISHED),
    ("rnf_cifar", "paper", "rnf"): Preset(_PUBLISHED),
    # One network, all of which is trained for every task.
    ("rnf_digits", "small", "rnf"): Preset({"budget": 2.0}),
    ("rnf_digits", "paper", "rnf"): Preset(_PUBLISHED),
    # RMN, supplement 3.2: three layers of 100 for all tasks together, 250 epochs of Adam at 2e-3.
    ("split_mnist", "small", "rmn"): Preset(_MLP_100, {**_PLAIN, "epochs": 10, "patience": 10, "learning_rate": 2e-3}),
    ("split_mnist", "paper", "rmn"): Preset(
        {**_MLP_100, **_PUBLISHED, "budget": 1.0}, {**_PLAIN, "epochs": 250, "patience": 250, "learning_rate": 2e-3}
    ),
    ("permuted_mnist", "small", "rmn"): Preset(
        _MLP_100, {**_PLAIN, "epochs": 10, "patience": 10, "learning_rate": 2e-3}
    ),
    ("permuted_mnist", "paper", "rmn"): Preset(
        {**_MLP_100, **_PUBLISHED, "budget": 1.0},
        {**_PLAIN, "batch_size": 128, "epochs": 250, "patience": 250, "learning_rate": 2e-3},
    ),
    ("split_cifar100", "paper", "rmn"): Preset({"settings": {"preset": "paper-cifar"}}, {"learning_rate": 1e-3}),
    # ReReLRP prunes in steps, without recovery, while accuracy stays within one point, in one network of a fixed size.
    ("split_mnist", "small", "rerelrp"): Preset({}, {"tolerance": 0.01}),
    ("split_mnist", "paper", "rerelrp"): Preset({**_PUBLISHED, "budget": 4.0}, _STEPWISE),
    ("split_cifar10", "small", "rerelrp"): Preset({}, {"tolerance": 0.01}),
    ("split_cifar10", "paper", "rerelrp"): Preset({**_VGG, **_PUBLISHED, "budget": 4.0}, _STEPWISE),
    ("split_cifar100", "paper", "rerelrp"): Preset({**_VGG, **_PUBLISHED, "budget": 8.0}, _STEPWISE),
    # SHARC keeps masked maps; its paper has S-CIFAR10 with and without the task, here as without.
    ("split_mnist", "small", "sharc"): Preset(_REPLAYED),
    ("split_mnist", "paper", "sharc"): Preset({**_PUBLISHED, **_REPLAYED}),
    ("permuted_mnist", "small", "sharc"): Preset(_REPLAYED),
    ("permuted_mnist", "paper", "sharc"): Preset({**_PUBLISHED, **_REPLAYED}),
    ("split_cifar10", "small", "sharc"): Preset(_REPLAYED),
    ("split_cifar10", "paper", "sharc"): Preset({**_PUBLISHED, **_REPLAYED}),
    ("split_cifar100", "small", "sharc"): Preset(_REPLAYED),
    ("split_cifar100", "paper", "sharc"): Preset({**_PUBLISHED, **_REPLAYED}),
    ("rnf_cifar", "small", "sharc"): Preset(_REPLAYED),
    ("rnf_cifar", "paper", "sharc"): Preset({**_PUBLISHED, **_REPLAYED}),
    ("rnf_digits", "small", "sharc"): Preset(_REPLAYED),
    ("rnf_digits", "paper", "sharc"): Preset({**_PUBLISHED, **_REPLAYED}),
}
"""Presets of single methods, overlaid on the common ones."""

BASELINE_SETTINGS: dict[str, dict[str, float]] = {
    "ewc": {"strength": 100.0},
    "lwf": {"alpha": 1.0, "temperature": 2.0},
    "icarl": {"images": 2000},
    "replay": {"images": 500},
}
"""Strengths of the penalties, and numbers of images kept; the same on all benchmarks."""


def preset(benchmark: str, scale: Scale, method: str) -> Preset:
    """The preset of one method; that of a baseline is the preset of `eidetic` with the baseline's settings."""
    common = COMMON[benchmark, scale]
    of = "eidetic" if method in BASELINES else method
    found = OF_METHOD.get((benchmark, scale, of), Preset()).over(common)
    if method in BASELINES:
        settings = BASELINE_SETTINGS.get(method, {})
        found = Preset({name: value for name, value in found.definition.items() if name != "settings"}, found.options)
        found = Preset({"settings": dict(settings)} if settings else {}).over(found)
    return found


def sizes(benchmark: str, scale: Scale) -> Sizes:
    """Numbers of images of each class."""
    return SIZES.get((benchmark, scale), Sizes())
