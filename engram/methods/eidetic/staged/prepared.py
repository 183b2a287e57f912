"""What a version answers and explains with, each part built once, when it is first asked for."""

from __future__ import annotations

import copy
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from engram.config.eidetic import EideticSettings
from engram.errors import UnknownTask
from engram.explain.explainer import Explainer
from engram.explain.pretrained.joined_explainer import JoinedExplainer, explainer_of
from engram.methods.eidetic.staged.served_task import ServedTask
from engram.methods.eidetic.staged.serving import Serving
from engram.methods.eidetic.staged.staged_task import StagedTask, network_of
from engram.nn.capacity import TaskInfo
from engram.nn.closures.engines import FIRST
from engram.nn.closures.plan import Engine
from engram.nn.commons import Commons
from engram.nn.layout import Layout
from engram.nn.network import Network
from engram.recognition.staged.recogniser import StagedRecogniser

_CPU = torch.device("cpu")


@dataclass
class Prepared:
    """The served form of one version, shared by all copies of its model and safe in many threads.

    It holds the version's parts itself: whoever learns in the meantime has parts, and a served form, of its own.
    """

    commons: Commons
    recogniser: StagedRecogniser
    tasks: Sequence[StagedTask]
    layout: Layout
    settings: EideticSettings
    engine: Engine = FIRST
    shown: tuple[TaskInfo, ...] = ()
    """As of `Serving`."""
    _serving: Serving | None = None
    _alone: dict[str, ServedTask] = field(default_factory=dict)
    _explainer: Explainer | JoinedExplainer | None = None
    _lock: threading.RLock = field(default_factory=threading.RLock)
    """Held while a part is built: a second thread waits for it rather than reading and building the same."""

    def serving(self) -> Serving:
        """What answers, with every task read; raises DamagedSnapshot, UnsupportedFormat."""
        if self._serving is not None:
            return self._serving
        with self._lock:
            if self._serving is None:
                network = self._network([task.name for task in self.tasks])
                self._serving = Serving.of(
                    self.commons, self.recogniser, self.tasks, network, self.settings, self.shown
                )
            return self._serving

    @property
    def whole(self) -> Serving | None:
        """What answers, where every task was read already."""
        return self._serving

    def served(self, task: str) -> ServedTask:
        """What answers for one task, with no other read but those that it reads.

        Raises
        ------
        UnknownTask, DamagedSnapshot, UnsupportedFormat
        """
        number = self.number(task)
        if self._serving is not None:
            return self._serving.served[number]
        with self._lock:
            if task not in self._alone:
                self._alone[task] = ServedTask.of(self.tasks[number], self._network([task]))
            return self._alone[task]

    def explainer(self) -> Explainer | JoinedExplainer:
        """What explains, on the processor, with every task read; raises DamagedSnapshot, UnsupportedFormat."""
        with self._lock:
            if self._explainer is None:
                stack, commons = self.serving().network.stack, self.commons
                if commons.device.type != "cpu":
                    # Not every step back has an exact way on a GPU, and a heatmap's bytes are to stay the same.
                    stack, commons = tuple(copy.deepcopy(engram).cpu() for engram in stack), commons.placed(_CPU)
                self._explainer = explainer_of(stack, commons)
            return self._explainer

    def number(self, task: str) -> int:
        """The place of a task; raises UnknownTask."""
        for number, one in enumerate(self.tasks):
            if one.name == task:
                return number
        raise UnknownTask(f"the model has no task {task!r}")

    def _network(self, names: Sequence[str]) -> Network:
        network = network_of(self.layout, self.tasks, names, self.engine)
        return network.to(self.commons.device).eval()
