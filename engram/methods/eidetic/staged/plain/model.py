"""Plain form of a whole version: both stages of an answer, with no branch that depends on an image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate, pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax, one_hot

from engram.methods.eidetic.staged.adopted import EVEN, LEAST
from engram.methods.eidetic.staged.plain.looks import plain_look
from engram.methods.eidetic.staged.serving import Serving
from engram.nn.network import Engram
from engram.nn.reads import gathered
from engram.recognition.staged.contest import MOST_ODDS, NEAREST, SHARPNESS
from engram.recognition.staged.observation import Labels
from engram.recognition.staged.per_task import Reduction
from engram.recognition.staged.profile import StagedProfile
from engram.recognition.staged.score_space import squared
from engram.recognition.staged.stacked_tasks import ORDINARY
from engram.recognition.staged.stage_one import RIVAL

Own = dict[int, tuple[Tensor | None, Tensor]]
"""By the number of a task what its network sees (B, F_t), if it has one, and its logits (B, classes)."""


class PlainModel(nn.Module):
    """A version that answers, images uint8 (B, C, H, W) -> a dictionary of tensors.

    `label` (B,) int64 and `task` (B,) int64, by their numbers; `probabilities` (B, labels) float32; `logits` (B,
    classes of all tasks) float32, 0 of tasks without a network; `known` (B,) int8, 1 or 0, -1 where it cannot be told;
    `novelty` (B,) float32. All tasks are run for all images, and those that would not have been asked are not heard.
    """

    def __init__(self, serving: Serving) -> None:
        super().__init__()
        self.look = plain_look(serving.commons)
        self.engrams = nn.ModuleList(serving.network.stack)
        self._serving = serving
        self._spans = list(pairwise(accumulate((len(info.classes) for info in serving.tasks), initial=0)))
        self.tasks = serving.shown or (*(() if serving.adopted is None else (serving.adopted,)), *serving.tasks)
        self.labels = Labels.of(self.tasks, serving.labels.joined)
        levels = [-1.0 if level is None else level for level in serving.levels]
        self.register_buffer("levels", torch.tensor(levels))  # (T,)
        self.register_buffer("vouched", torch.tensor(serving.vouched, dtype=torch.bool))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        given, common, own = self.look(images)
        if not self._serving.tasks:
            assert own is not None, "a model without tasks has an adopted one"
            decided = torch.softmax(own, 1)
            blank = torch.zeros_like(decided[:, 0])
            return self._told(decided, decided, own, blank.to(torch.int8) - 1, blank)
        found = self._own(images / 255.0 if given is None else given, common, own)
        logits = torch.cat([found[number][1] for number in range(len(self._spans))], 1)
        return self._answered(common, own, found, logits)

    def _answered(self, common: Tensor, own: Tensor | None, found: Own, logits: Tensor) -> dict[str, Tensor]:
        serving, levels = self._serving, self.levels
        assert isinstance(levels, Tensor), "it is a buffer"
        space = serving.stage_one.space
        points = space.points(common)
        distances = squared(points, space.means)  # (B, classes)
        classes = log_softmax(-0.5 * serving.stage_one.temperature * distances, 1)
        tasks = self._by_task(classes, torch.logsumexp)  # (B, T)
        unusual = self._unusual(points, distances, serving.stage_one.deviating(common))
        first = self._contenders(tasks)
        p_values = torch.stack([self._p_values(n, common, unusual) for n in range(len(self._spans))], 1)  # (B, T)
        declined = ~((p_values > levels) & first).any(1, keepdim=True)
        near = unusual.topk(min(NEAREST, len(self._spans)), 1, largest=False).indices
        more = torch.zeros_like(first).scatter(1, near, True) & ~first & declined
        ordinary = levels.clamp_min(ORDINARY)
        contending, asked = first | (more & (p_values > ordinary) & (levels >= 0)), first | more
        logs = self._shared(tasks, contending, found)
        decided, told = self._joint(classes, tasks, logs, contending, found)
        answering = one_hot(owners(serving.labels, decided), len(self._spans)).bool()
        unasked = answering & ~asked
        asked = asked | unasked
        accepts = asked & (p_values > torch.where(first | unasked, levels, ordinary)) & (levels >= 0)
        if own is not None and serving.adopted is not None:
            ordinarily = torch.where(asked, p_values, 0).amax(1, keepdim=True)
            share = (ordinarily / (ordinarily + EVEN)).clamp(LEAST, 1 - LEAST)
            beside = (1 - share) * torch.softmax(own, 1)
            decided, told = torch.cat([beside, share * decided], 1), torch.cat([beside, share * told], 1)
            logits = torch.cat([own, logits], 1)
        return self._told(decided, told, logits, *self._known(decided, p_values, accepts))

    def _told(self, decided: Tensor, told: Tensor, logits: Tensor, known: Tensor, novelty: Tensor) -> dict[str, Tensor]:
        return {
            "label": summed(self.labels, decided).argmax(1),
            "task": owners(self.labels, decided),
            "probabilities": summed(self.labels, told),
            "logits": logits,
            "known": known,
            "novelty": novelty,
        }

    def _own(self, given: Tensor, common: Tensor, own: Tensor | None) -> Own:
        """What every task's network says."""
        serving = self._serving
        values: dict[tuple[str, str], Tensor] = {}
        seen: dict[str, tuple[Tensor, Tensor]] = {}
        for engram in serving.network.stack:
            seen[engram.task] = _run(engram, given, values)
        found: Own = {}
        for number, task in enumerate(serving.served):
            head = task.task.linear if task.engram is None else task.engram.common
            features, logits = seen.get(task.info.name, (None, None))
            if task.task.known.head == "network":
                assert own is not None, "a network that was adopted has a classifier"
                logits = own
            elif head is not None:
                added = common @ head.weight.T + head.bias
                logits = added if logits is None else logits + added
            elif logits is None:
                logits = common[:, :1] * torch.zeros(1, len(task.info.classes))
            found[number] = features, logits
        return found

    def _by_task(self, values: Tensor, reduce: Reduction) -> Tensor:
        """(B, classes) -> (B, T)."""
        return torch.stack([reduce(values[:, first:last], 1) for first, last in self._spans], 1)

    def _unusual(self, points: Tensor, distances: Tensor, outputs: Tensor | None) -> Tensor:
        space = self._serving.stage_one.space
        if (relative := space.relative) is not None:
            ratios = self._by_task(relative.deviates(points, distances), torch.amin)
            return relative.told(ratios, self._by_task(distances, torch.amin), outputs)
        freedom = max(1, space.means.shape[1])
        spread = 2 / (9 * freedom)
        nearest = self._by_task(distances, torch.amin)
        found: Tensor = ((nearest / freedom).pow(1 / 3) - (1 - spread)) / spread**0.5
        return found

    def _contenders(self, tasks: Tensor) -> Tensor:
        most = self._serving.contenders
        if most == "all" or len(self._spans) == 1:
            return torch.ones_like(tasks, dtype=torch.bool)
        ordered, order = tasks.sort(1, descending=True)
        chosen = ordered >= ordered[:, :1] + math.log(RIVAL)
        chosen = chosen & (torch.arange(len(self._spans)) < most)
        return torch.zeros_like(chosen).scatter(1, order, chosen)

    def _p_values(self, number: int, common: Tensor, unusual: Tensor) -> Tensor:
        profile: StagedProfile = self._serving.served[number].profile
        width = profile.density.means.shape[1]  # of several commons, densities are over the first
        return profile.p_values(common[:, :width], unusual[:, number])

    def _shared(self, tasks: Tensor, contending: Tensor, found: Own) -> Tensor:
        """(B, T): log of each task's probability, what contenders hold together shared among them anew."""
        serving, several = self._serving, contending.sum(1, keepdim=True).clamp_min(1).float()
        evidence = torch.zeros_like(tasks)
        for number, weighed in serving.decider.detectors.items():
            features, reading = found[number][0], serving.served[number].task.known.reading
            if features is None or reading is None:
                continue
            detector, others = weighed.detector, weighed.others
            scores = reading(features) @ detector.weights[:-1] + detector.weights[-1]
            mine, *rest = (part.logsumexp(1) for part in torch.split(scores, list(detector.sizes), 1))
            odds = (SHARPNESS * torch.stack([mine - other for other in rest], 1)).clamp(-MOST_ODDS, MOST_ODDS)
            apart = tasks[:, number : number + 1] - tasks[:, others]
            change = (weighed.weights[:, 0] - 1) * apart + weighed.weights[:, 1] * odds
            change = change * (contending[:, others] & contending[:, number : number + 1]) / several
            place = one_hot(torch.cat([torch.tensor([number]), others]), len(self._spans)).float()  # (1 + others, T)
            evidence = evidence + torch.cat([change.sum(1, keepdim=True), -change], 1) @ place
        shut = tasks.masked_fill(~contending, -torch.inf)
        mass = shut.logsumexp(1, keepdim=True)
        among = log_softmax(shut + evidence, 1) + mass
        return torch.where(contending, among, tasks)

    def _joint(
        self, classes: Tensor, tasks: Tensor, logs: Tensor, contending: Tensor, found: Own
    ) -> tuple[Tensor, Tensor]:
        """Probabilities (B, classes of all tasks) that decide, and those that are told."""
        serving = self._serving
        balanced = any(task.profile.balance is not None for task in serving.served)
        deciding, telling = [], []
        for number, (first, last) in enumerate(self._spans):
            ridge, log = classes[:, first:last], logs[:, number : number + 1]
            apart = ridge + (log - tasks[:, number : number + 1])
            if not serving.heads_of[number]:
                deciding.append(apart)
                telling.append(apart)
                continue
            profile = serving.served[number].profile
            balance, logits = profile.balance, found[number][1]
            given = logits if balance is None else logits + balance.offset
            head, beside = log_softmax(given / profile.temperature, 1), log_softmax(ridge, 1)
            within = log_softmax(profile.head_share * head + (1 - profile.head_share) * beside, 1)
            asked = contending[:, number : number + 1]
            deciding.append(torch.where(asked, log + within, apart))
            if balanced and balance is not None:
                within = log_softmax(within + balance.log_prior, 1)
            telling.append(torch.where(asked, log + within, apart))
        return torch.cat(deciding, 1).exp(), torch.cat(telling, 1).exp()

    def _known(self, decided: Tensor, p_values: Tensor, accepts: Tensor) -> tuple[Tensor, Tensor]:
        """Whether each image is known, and its novelty, by the task that answers."""
        levels, vouched = self.levels, self.vouched
        assert isinstance(levels, Tensor), "it is a buffer"
        assert isinstance(vouched, Tensor), "it is a buffer"
        adopted = len(self.tasks) - len(self._spans)
        owner = owners(self.labels, decided) - adopted  # (B,)
        own = owner.clamp_min(0)
        p_value = p_values.gather(1, own[:, None])[:, 0]
        untold = (levels[own] < 0) | (owner < 0)
        declined = ~untold & (p_value <= levels[own])
        accepted = declined & accepts.any(1)
        yes = torch.where(accepted, (accepts & vouched).any(1), vouched[own] & ~declined)
        known = torch.where(declined & ~accepted, 0, torch.where(yes & ~untold, 1, -1))
        nearest = torch.where(accepts, p_values, 0).amax(1)
        novelty = (1 - torch.where(accepted, nearest, p_value)).clamp(0, 1)
        return known.to(torch.int8), torch.where(owner < 0, 0, novelty)


def _run(engram: Engram, given: Tensor, values: dict[tuple[str, str], Tensor]) -> tuple[Tensor, Tensor]:
    """An engram's features and logits; its nodes' values are added to those of the earlier ones."""
    own: dict[str, Tensor] = {}
    joined = engram(given, gathered(engram.layout, engram.reads or (), values), own)
    values.update({(engram.task, name): value for name, value in own.items()})
    return joined[engram.layout.features.name], engram.logits(joined)


def summed(labels: Labels, joint: Tensor) -> Tensor:
    """(B, classes of all tasks) -> (B, labels)."""
    return joint @ one_hot(labels.of_class, len(labels.names)).float()


def owners(labels: Labels, joint: Tensor) -> Tensor:
    """(B,): the task that has the most probable class of the most probable label."""
    best = summed(labels, joint).argmax(1, keepdim=True)
    classes = torch.where(labels.of_class == best, joint, -1.0).argmax(1)
    return torch.tensor(labels.tasks)[classes]


def described(model: PlainModel) -> dict[str, object]:
    """What the numbers of the answers stand for."""
    tasks: Sequence[dict[str, object]] = [{"name": info.name, "classes": list(info.classes)} for info in model.tasks]
    return {"labels": list(model.labels.names), "tasks": list(tasks)}
