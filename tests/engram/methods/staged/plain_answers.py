"""Plain form of staged answers, task by task, whose bytes the fast form has to give."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from engram.methods.eidetic.staged.serving import Serving
from engram.nn.commons.grid_commons import GridCommons
from engram.nn.network import pixels
from engram.recognition.conformal import ConformalScores
from engram.recognition.predictions import is_known
from engram.recognition.staged.contest import MOST_ODDS, NEAREST, SHARPNESS
from engram.recognition.staged.stacked_tasks import ORDINARY
from engram.recognition.staged.stage_one import RIVAL


@dataclass(frozen=True)
class PlainAnswers:
    """What both stages say of B images, as `StagedObservation` says it."""

    log_tasks: Tensor
    p_values: Tensor
    decided: Tensor
    told: Tensor
    contending: Tensor
    accepted: Tensor
    vouching: Tensor
    nearest: Tensor


class PlainServing:
    """The parts of a version, asked one after another."""

    def __init__(self, serving: Serving) -> None:
        self.serving = serving
        self.spans = list(pairwise(accumulate((len(info.classes) for info in serving.tasks), initial=0)))

    @torch.no_grad()
    def answers(self, images: Tensor, most: int | None) -> PlainAnswers:
        serving, given = self.serving, pixels(images)
        assert isinstance(serving.commons, GridCommons)
        whole = serving.commons.pixels(given)
        common = torch.cat([bank(whole) for bank in serving.commons.each()], 1)
        distances = serving.stage_one.space.squared(common)
        classes = log_softmax(-0.5 * serving.stage_one.temperature * distances, 1)
        tasks = torch.stack([classes[:, first:last].logsumexp(1) for first, last in self.spans], 1)
        unusual = self.unusual(distances)
        first = self.contenders(tasks, most)
        p_values = self.p_values(common, unusual, first, torch.full(tasks.shape, torch.nan))
        contending, asked = first, first
        levels = torch.tensor([-1.0 if level is None else level for level in serving.levels])
        declined = ~((p_values > levels) & first).any(1)
        if bool(declined.any()) and not bool(first.all()):
            near = unusual.topk(min(NEAREST, len(self.spans)), 1, largest=False).indices
            more = torch.zeros_like(first).scatter(1, near, True) & ~first & declined[:, None]
            p_values = self.p_values(common, unusual, more, p_values)
            contending, asked = first | (more & (p_values > levels.clamp_min(ORDINARY)) & (levels >= 0)), first | more
        rows = {n: contending[:, n].nonzero().flatten() for n, has in enumerate(serving.heads_of) if has}
        found = {n: self.network(n, given[own], common[own]) for n, own in rows.items() if len(own)}
        logs = self.shared(tasks, contending, rows, {n: features for n, (features, _) in found.items()})
        decided, told = self.joint(classes, tasks, logs, rows, {n: logits for n, (_, logits) in found.items()})
        answering = torch.zeros_like(first).scatter(1, self.owners(decided)[:, None], True)
        unasked = answering & p_values.isnan()
        p_values = self.p_values(common, unusual, unasked, p_values)
        least = torch.where(first | unasked, levels, levels.clamp_min(ORDINARY))
        accepts = (asked | unasked) & (p_values > least) & (levels >= 0)
        vouching = (accepts & torch.tensor(serving.vouched)).any(1)
        nearest = p_values.masked_fill(~accepts, 0).amax(1)
        return PlainAnswers(logs, p_values, decided, told, contending, accepts.any(1), vouching, nearest)

    def unusual(self, distances: Tensor) -> Tensor:
        freedom = max(1, self.serving.stage_one.space.means.shape[1])
        spread = 2 / (9 * freedom)
        nearest = torch.stack([distances[:, first:last].amin(1) for first, last in self.spans], 1)
        found: Tensor = ((nearest / freedom).pow(1 / 3) - (1 - spread)) / spread**0.5
        return found

    def contenders(self, tasks: Tensor, most: int | None) -> Tensor:
        if most is None or tasks.shape[1] == 1:
            return torch.ones_like(tasks, dtype=torch.bool)
        ordered, order = tasks.sort(1, descending=True)
        chosen = ordered >= ordered[:, :1] + math.log(RIVAL)
        chosen[:, most:] = False
        return torch.zeros_like(chosen).scatter(1, order, chosen)

    def p_values(self, common: Tensor, unusual: Tensor, asked: Tensor, known: Tensor) -> Tensor:
        """The p-values that are known, and those of the pairs that are asked."""
        found = known.clone()
        for number, task in enumerate(self.serving.served):
            rows, profile = asked[:, number].nonzero().flatten(), task.profile
            if not len(rows):
                continue
            logs = profile.density.distance(common[rows]).clamp_min(1e-12).log()
            alone = p_value(profile.density.log_scores, logs)
            found[rows, number] = alone
            if profile.combined is not None:
                outer = profile.combined.scattered.standardised(unusual[rows, number]).clamp_min(0)
                together = torch.hypot(profile.density.log_scores.standardised(logs).clamp_min(0), outer)
                both = p_value(profile.combined.both, together)
                found[rows, number] = (2 * torch.minimum(both, alone)).clamp_max(1)
        return found

    def network(self, number: int, given: Tensor, common: Tensor) -> tuple[Tensor, Tensor]:
        task = self.serving.served[number]
        features, logits = task.network.answer(task.info.name, given)
        return features, logits if task.head is None else logits + task.head(common)

    def shared(self, tasks: Tensor, contending: Tensor, rows: dict[int, Tensor], features: dict[int, Tensor]) -> Tensor:
        evidence, several = torch.zeros_like(tasks), contending.sum(1).float()
        for number in features.keys() & self.serving.decider.detectors.keys():
            own, weighed = rows[number], self.serving.decider.detectors[number]
            reading = self.serving.served[number].task.known.reading
            assert reading is not None
            scores = reading(features[number]) @ weighed.detector.weights[:-1] + weighed.detector.weights[-1]
            mine, *others = (part.logsumexp(1) for part in torch.split(scores, list(weighed.detector.sizes), 1))
            odds = (SHARPNESS * torch.stack([mine - other for other in others], 1)).clamp(-MOST_ODDS, MOST_ODDS)
            apart = tasks[own][:, [number]] - tasks[own][:, weighed.others]
            change = (weighed.weights[:, 0] - 1) * apart + weighed.weights[:, 1] * odds
            odds = change * contending[own][:, weighed.others] / several[own][:, None]
            evidence[own, number] += odds.sum(1)
            evidence[own[:, None], weighed.others[None]] -= odds
        mass = tasks.masked_fill(~contending, -torch.inf).logsumexp(1, keepdim=True)
        among = log_softmax((tasks + evidence).masked_fill(~contending, -torch.inf), 1) + mass
        return torch.where(contending, among, tasks)

    def joint(
        self, classes: Tensor, tasks: Tensor, logs: Tensor, rows: dict[int, Tensor], logits: dict[int, Tensor]
    ) -> tuple[Tensor, Tensor]:
        decided, told = classes.clone(), classes.clone()
        for number, (first, last) in enumerate(self.spans):
            for values in (decided, told):
                values[:, first:last] += (logs - tasks)[:, [number]]
            if number not in logits:
                continue
            own, profile = rows[number], self.serving.served[number].profile
            balance = profile.balance
            given = logits[number] if balance is None else logits[number] + balance.offset
            head, beside = log_softmax(given / profile.temperature, 1), log_softmax(classes[own, first:last], 1)
            within = log_softmax(profile.head_share * head + (1 - profile.head_share) * beside, 1)
            decided[own, first:last] = logs[own][:, [number]] + within
            if any(task.profile.balance is not None for task in self.serving.served):
                within = log_softmax(within if balance is None else within + balance.log_prior, 1)
            told[own, first:last] = logs[own][:, [number]] + within
        return decided.exp(), told.exp()

    def summed(self, joint: Tensor) -> Tensor:
        labels = self.serving.labels
        return torch.stack([sum((joint[:, one] for one in held[1:]), joint[:, held[0]]) for held in labels.classes], 1)

    def owners(self, joint: Tensor) -> Tensor:
        return torch.tensor([self.holders(row, int(row_best))[0] for row, row_best in self.best(joint)])

    def best(self, joint: Tensor) -> Sequence[tuple[Tensor, int]]:
        return list(zip(joint, self.summed(joint).argmax(1).tolist(), strict=True))

    def holders(self, joint: Tensor, label: int) -> list[int]:
        held = self.serving.labels.classes[label]
        return [self.serving.labels.tasks[one] for one in sorted(held, key=lambda one: -float(joint[one]))]

    def predictions(self, answers: PlainAnswers, top_k: int) -> list[tuple[object, ...]]:
        """For each image the fields of `Prediction`, the best labels as tuples too."""
        serving, labels = self.serving, self.serving.labels
        found: list[tuple[object, ...]] = []
        names = [info.name for info in serving.tasks]
        decided, told = self.summed(answers.decided), self.summed(answers.told)
        certain = answers.log_tasks.exp()
        for row in range(len(decided)):
            ran = [n for n, has in enumerate(serving.heads_of) if has and bool(answers.contending[row, n])]
            top = []
            for label in decided[row].sort(descending=True, stable=True).indices[:top_k].tolist():
                owners = self.holders(answers.decided[row], label)
                shared = tuple(names[one] for one in owners) if labels.joined else ()
                evidence = "head" if owners[0] in ran else "ridge"
                top.append((names[owners[0]], labels.names[label], float(told[row, label]), evidence, shared))
            owner = names.index(str(top[0][0]))
            p_value = float(answers.p_values[row, owner])
            known = is_known(p_value, serving.levels[owner], serving.vouched[owner])
            if known is False and bool(answers.accepted[row]):
                known, p_value = (True if bool(answers.vouching[row]) else None), float(answers.nearest[row])
            novelty = min(1.0, max(0.0, 1.0 - p_value))
            best, running = top[0], tuple(names[one] for one in ran)
            certainty = float(certain[row, owner])
            found.append((best[0], certainty, best[1], best[2], tuple(top), known, novelty, 1, running, True))
        return found


def p_value(scores: ConformalScores, values: Tensor) -> Tensor:
    """As `ConformalScores.p_value`, where numbers of scores are counted in float32."""
    counts = torch.full((len(values),), len(scores.values))
    nearer = torch.searchsorted(scores.values, values.contiguous())
    counted = (counts - nearer + 1) / (counts + 1)
    farthest = _log_tail(scores.standardised(scores.values[-1:]), counts[:1])
    beyond = (_log_tail(scores.standardised(values), counts) - farthest).clamp_max(0).exp()
    return torch.where(values > scores.values[-1], counted * beyond, counted)


def _log_tail(values: Tensor, counts: Tensor) -> Tensor:
    freedom = (counts - 1).clamp_min(1).float()
    t = values * (freedom / (counts + 1)).sqrt()
    bounded = (freedom * torch.log1p(t.square() / freedom)).sqrt() * ((8 * freedom + 1) / (8 * freedom + 3))
    found: Tensor = torch.special.log_ndtr(-bounded.copysign(t))
    return found
