"""Baseline learner: one network with one head for all classes, trained by Avalanche.

With the id of the task, the answer is the largest of the outputs of the task's classes; without, of all classes learned
so far. If tasks share their classes, the id changes nothing and no task is recognised.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from benchmarks.baselines.avalanche import benchmarks, datasets, plugins, supervised
from benchmarks.baselines.network import BaselineNetwork
from benchmarks.baselines.unsuited import Unsuited
from benchmarks.harness.datasets import Tasks
from benchmarks.harness.learners import BenchmarkPrediction
from engram import Definition, Examples, LearnOptions
from engram.checkpointing.progress import Progress
from engram.data.examples import EVALUATION_BATCH
from engram.training.optimisers import optimiser_of

_SETTINGS = {
    "naive": (),
    "joint": (),
    "ewc": ("strength",),
    "lwf": ("alpha", "temperature"),
    "icarl": ("images",),
    "replay": ("images",),
}
"""Settings of each baseline beside the training options."""


class Baseline:
    """One baseline on one sequence of tasks.

    Parameters
    ----------
    definition
        Definition of the model to compare with: the network has as many units in each layer as one task may try.
    options
        Optimiser, learning rate, batch size and epochs are taken from it; the learning rate is constant.
    settings
        As in `presets.BASELINE_SETTINGS`.

    Raises
    ------
    Unsuited
    """

    def __init__(
        self,
        name: str,
        definition: Definition,
        options: LearnOptions,
        tasks: Tasks,
        settings: Mapping[str, float],
        device: str,
    ) -> None:
        if set(settings) != set(_SETTINGS[name]):
            raise Unsuited(
                f"{name} takes the settings {', '.join(_SETTINGS[name]) or 'none'}, not {', '.join(settings)}"
            )
        self.name = name
        self.incremental = name != "joint"
        self._labels = tasks.labels
        self._sizes = [len(examples.classes) for examples in tasks.train]
        self._shared = sum(self._sizes) > len(self._labels)
        if self._shared and name == "icarl":
            raise Unsuited("iCaRL needs new classes in every task; here, tasks share theirs")
        self._network = BaselineNetwork(definition, self._labels, definition.seed)
        self._tasks: dict[str, tuple[str, ...]] = {}
        self._waiting: list[Examples] = []
        self._device = torch.device(device)
        self._generator_seed = definition.seed
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns that nothing is logged, which is intended
            self._strategy = self._build_strategy(options, settings)

    def _build_strategy(self, options: LearnOptions, settings: Mapping[str, float]) -> Any:
        common = {
            "optimizer": optimiser_of(options, self._network.parameters()),
            "train_mb_size": options.batch_size,
            "train_epochs": options.epochs,
            "eval_mb_size": EVALUATION_BATCH,
            "device": self._device,
            "evaluator": plugins.EvaluationPlugin(),
        }
        if self.name == "icarl":
            return supervised.ICaRL(
                feature_extractor=self._network.features,
                classifier=self._network.head,
                memory_size=int(settings["images"]),
                buffer_transform=None,
                fixed_memory=True,
                **common,
            )
        common |= {"model": self._network, "criterion": torch.nn.CrossEntropyLoss()}
        match self.name:
            case "naive":
                return supervised.Naive(**common)
            case "joint":
                return supervised.JointTraining(**common)
            case "ewc":
                return supervised.EWC(ewc_lambda=settings["strength"], **common)
            case "lwf":
                return supervised.LwF(alpha=settings["alpha"], temperature=settings["temperature"], **common)
            case _:
                return supervised.Replay(mem_size=int(settings["images"]), **common)

    def learn(self, task: str, examples: Examples, progress: Callable[[Progress], None]) -> dict[str, object]:
        """Train on one task; joint training waits for the last one."""
        self._tasks[task] = examples.classes
        self._waiting.append(examples)
        if not self.incremental and len(self._tasks) < len(self._sizes):
            return {}
        given = benchmarks.benchmark_from_datasets(train=[self._dataset(waiting) for waiting in self._waiting])
        stream = given.train_stream
        for experience in stream:  # iCaRL reads the new classes from it
            experience.benchmark = SimpleNamespace(
                n_classes_per_exp=self._sizes, classes_order=list(range(len(self._labels)))
            )
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings(record=True):  # some reset the filters
            torch.manual_seed(self._generator_seed * 1000 + len(self._tasks))
            self._strategy.train(stream[0] if self.incremental else stream)
        if self.incremental:
            self._waiting = []
        progress(Progress("training", 1.0))
        return {}

    def _dataset(self, examples: Examples) -> Any:
        numbers = torch.tensor([self._labels.index(name) for name in examples.classes])
        return datasets._make_taskaware_tensor_classification_dataset(examples.images, numbers[examples.labels])

    @torch.no_grad()
    def predict(self, examples: Examples, task: str | None) -> list[BenchmarkPrediction]:
        model = self._strategy.model.eval()
        allowed = self._tasks[task] if task is not None else tuple(n for names in self._tasks.values() for n in names)
        mask = torch.full((len(self._labels),), -math.inf)
        mask[[self._labels.index(name) for name in allowed]] = 0.0
        found = []
        for images in torch.split(examples.images, EVALUATION_BATCH):
            logits: Tensor = model(images.to(self._device)).cpu()
            missing = len(self._labels) - logits.shape[1]  # nearest-mean classifiers end at the newest class
            padded = torch.nn.functional.pad(logits, (0, missing), value=-math.inf)
            best = (padded + mask).softmax(1).max(1)
            found += [
                self._prediction(self._labels[index], probability)
                for index, probability in zip(best.indices.tolist(), best.values.tolist(), strict=True)
            ]
        return found

    def _prediction(self, label: str, probability: float) -> BenchmarkPrediction:
        task = None if self._shared else next(name for name, labels in self._tasks.items() if label in labels)
        return BenchmarkPrediction(task, label, probability)

    def free(self) -> None:
        """None, since no unit is owned."""

    def stored(self) -> dict[str, int]:
        """Bytes of the network, and of what the method keeps beside it between tasks."""
        network, kept = _bytes(self._network), self._kept()
        return {"network": network, "kept": kept, "all": network + kept}

    def _kept(self) -> int:
        """Bytes beside the network: images, older networks, importances of their weights."""
        kept = 0
        if self.name == "joint":
            kept = sum(examples.images.numel() for examples in self._waiting)
        for plugin in self._strategy.plugins:
            if isinstance(plugin, plugins.ReplayPlugin):
                buffer = plugin.storage_policy.buffer
                kept += sum(buffer[row][0].numel() for row in range(len(buffer)))
            elif isinstance(plugin, plugins.EWCPlugin):
                tables = (*plugin.saved_params.values(), *plugin.importances.values())
                kept += 4 * sum(one.data.numel() for table in tables for one in table.values())
            elif isinstance(plugin, plugins.LwFPlugin):
                kept += _bytes(self._network)
            elif hasattr(plugin, "x_memory"):  # iCaRL's plugin, whose class is not public
                kept += _bytes(self._network) + sum(images.numel() for images in plugin.x_memory)
        return kept

    def close(self) -> None:
        """Do nothing."""


def _bytes(network: torch.nn.Module) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())
