"""Learning of one task in a shared network as ReReLRP publishes it: train, prune by relevance, freeze.

What the paper leaves open is decided so: all units compete over the whole network, frozen ones too, so that a task's
sub-network may do without units of earlier tasks; of the steps of pruning, the last that holds counts; what was pruned
acts on nothing that was frozen with the task, and is drawn anew for the next; and pruning may be followed by recovery,
as the task's options say (the paper has none).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor

from engram.context import LearnContext, WithContext
from engram.data.examples import Examples, split
from engram.explain.unit_relevance import normalised, relevances
from engram.nn.elastic import HEAD, Blocked, Rates, hold, spread, weight_of
from engram.nn.layout import Layout
from engram.nn.multihead import Kept, MultiHeadNetwork, Owners, claimed, read_by, renewed, silenced, values_of
from engram.nn.network import Engram
from engram.training.distinctive_patches import start_from_patches
from engram.training.importance import SCORED_IMAGES, Scores
from engram.training.optimisers import ElasticOptimisers
from engram.training.pruning import choose
from engram.training.report import LearningReport
from engram.training.trainer import Trainer, TrainingPhase


@dataclass
class Freezer(WithContext):
    """The learner of one task in a shared network of which some units are frozen.

    Parameters
    ----------
    shared
        What all tasks share today; nothing of it is changed.
    step
        Share of all units that each step of pruning takes away.
    """

    shared: MultiHeadNetwork
    step: float
    context: LearnContext

    def learn(
        self, task: str, examples: Examples, number: int
    ) -> tuple[MultiHeadNetwork, Engram, LearningReport, Examples, Examples]:
        """Learn the task of this number, counted from 1.

        Returns
        -------
        The shared network afterwards, the task's frozen sub-network as an engram on an empty stack, the report so far,
        the images it was learned from and the images it was judged by.

        Raises
        ------
        ExamplesError, Cancelled
        """
        train, held_out = split(examples, self.options.held_out, self.context.seed, recipe=self.context.recipe)
        report = LearningReport.begun(task, train, held_out, self.options, self.reporter.journal)
        report.candidate = {layer: int((owner == 0).sum()) for layer, owner in self.shared.owners.items()}
        candidate, trainer = self._candidate(task, train, held_out)
        with report.timed("training"):
            phase = TrainingPhase.to_plateau(self.options)
            report.accuracy["trained"] = trainer.trained_accuracy(candidate, trainer.fit(candidate, phase))
        candidate, kept = self._pruned(candidate, trainer, report)
        self.reporter.report("freezing", 1.0)
        owners = claimed(self.shared.owners, kept, number)
        engram = copy.deepcopy(candidate.narrowed(_indices(kept))).to(self.device).freeze()
        report.units = {layer: int((owner == number).sum()) for layer, owner in owners.items()}
        report.details["subnetwork"] = dict(engram.units)
        report.accuracy["network"] = trainer.accuracy(engram, held_out)
        return self._frozen(candidate, owners, kept, number), engram, report, train, held_out

    def _candidate(self, task: str, train: Examples, held_out: Examples) -> tuple[Engram, Trainer]:
        """The network as it is trained: free units move, frozen ones do not."""
        candidate = self.shared.candidate(task, train.classes, self.context.seed).to(self.device)
        candidate.requires_grad_(True)
        if self.context.recipe > 1:
            free = self.shared.owners[candidate.layout.nodes[0].layer] == 0
            start_from_patches(candidate, train, self.context.generator(), free)
        trainer = Trainer.alone(self.shared.layout, train, held_out, self.context)
        return candidate, self._restrained(candidate, trainer, self.shared.rates(0.0), None)

    def _restrained(self, candidate: Engram, trainer: Trainer, rates: Rates, blocked: Blocked | None) -> Trainer:
        hold(candidate, rates)
        return trainer.with_optimiser(ElasticOptimisers(self.context, candidate, rates, blocked))

    def _pruned(self, candidate: Engram, trainer: Trainer, report: LearningReport) -> tuple[Engram, Kept]:
        """What is left when the least relevant units have gone, and the candidate that was trained for it."""
        kept: Kept = {layer: torch.ones(units, dtype=torch.bool) for layer, units in candidate.units.items()}
        if not self.options.prune:
            return candidate, kept
        rounds = self.options.rounds
        least = trainer.validated(candidate) - self.options.tolerance
        for number in range(rounds):
            self.reporter.report("pruning", number / rounds, units=_count(kept))
            with report.timed("pruning"):
                fewer = self._stepped(candidate, kept, trainer, least)
            if _count(fewer) == _count(kept):
                break
            with report.timed("recovering"):
                recovered = self._recovered(candidate, fewer, trainer, number)
            if trainer.validated(recovered.narrowed(_indices(fewer))) < least:
                break
            candidate, kept = recovered, fewer
        return candidate, kept

    def _stepped(self, candidate: Engram, kept: Kept, trainer: Trainer, least: float) -> Kept:
        """Take the least relevant of the kept units away, step by step, down to the last step at which accuracy holds.

        One step that fails by chance, on a few hundred images, must not leave the task with the whole network.
        """
        scores, found = self._scores(candidate, kept, trainer), kept
        share = _count(kept) / sum(candidate.units.values())
        while (share := share - self.step) > 0:
            chosen = choose(scores, share, self.options.floor)
            fewer = {layer: _mask(chosen[layer], len(units)) & units for layer, units in kept.items()}
            if trainer.validated(candidate.narrowed(_indices(fewer)), least) >= least:
                found = fewer
        return found

    def _recovered(self, candidate: Engram, kept: Kept, trainer: Trainer, number: int) -> Engram:
        """The candidate after more training of the kept units that are not frozen, in the absence of all others."""
        rounds, epochs = self.options.rounds, self.options.recovery_epochs
        if not epochs:
            return candidate
        pruned = silenced(candidate, kept)
        free = {layer: owner == 0 for layer, owner in self.shared.owners.items()}
        rates = {layer: (free[layer] & units).float() for layer, units in kept.items()}
        trainer = self._restrained(pruned, trainer, rates, _unheard(candidate.layout, kept))
        share = (number / rounds, (number + 1) / rounds)
        trainer.fit(pruned, TrainingPhase.recovering(self.options, share))
        recovered = copy.deepcopy(candidate)
        with torch.no_grad():
            for node in recovered.layout.nodes:
                if node.mixing:
                    rows, found = free[node.layer].to(self.device), pruned.block(node).state_dict()
                    for name, value in recovered.block(node).state_dict().items():
                        if value.ndim:
                            value[rows] = found[name][rows]
            recovered.head.load_state_dict(pruned.head.state_dict())
        return recovered

    def _scores(self, candidate: Engram, kept: Kept, trainer: Trainer) -> Scores:
        """The relevance of each unit: normalised for each image and layer, summed over images, of mean 1 in a layer.

        Units that are not kept come last.
        """
        chosen = torch.randperm(len(trainer.train), generator=trainer.generator)[: SCORED_IMAGES[1]]
        examples, pruned = trainer.train.subset(chosen), silenced(candidate, kept)
        totals = self.reporter.journal.once("scores", lambda: self._relevance(pruned, examples, trainer.weights))
        means = {layer: total[kept[layer]].abs().mean().clamp_min(1e-30) for layer, total in totals.items()}
        return {layer: (total / means[layer]).masked_fill(~kept[layer], -torch.inf) for layer, total in totals.items()}

    def _relevance(self, engram: Engram, examples: Examples, weights: Tensor | None) -> dict[str, Tensor]:
        totals, done = {layer: torch.zeros(units) for layer, units in engram.units.items()}, 0
        for found in relevances(engram, examples, self.reporter, self.device):
            for layer, relevance in found.items():
                shares = normalised(relevance)  # (B, units)
                if weights is not None:
                    shares = shares * weights.cpu()[examples.labels[done : done + len(shares)], None]
                totals[layer] += shares.sum(0)
            done += len(next(iter(found.values())))
        return totals

    @torch.no_grad()
    def _frozen(self, candidate: Engram, owners: Owners, kept: Kept, number: int) -> MultiHeadNetwork:
        """The shared network after the task: what it pruned is drawn anew, and acts on none of what it froze."""
        learned = copy.deepcopy(candidate).eval()
        for node in learned.layout.nodes:
            read = read_by(learned.layout, node, kept) if node.mixing else None
            if read is not None:
                weight, new = weight_of(learned.block(node)), owners[node.layer] == number
                weight.masked_fill_(spread(new[:, None] & ~read[None, :], weight), 0.0)
        renewed(learned, {layer: owner == 0 for layer, owner in owners.items()}, self.context.seed)
        for parameter in learned.parameters():
            parameter.requires_grad_(False)
            parameter.grad = None
        return MultiHeadNetwork(self.shared.layout, self.shared.units, learned.blocks, owners, ())


def _unheard(layout: Layout, kept: Kept) -> Blocked:
    """All weights by which units that are not kept could act."""
    blocked = {HEAD: ~values_of(layout.features, kept)[None]}  # (1, F)
    for node in layout.nodes:
        if node.mixing:
            read = read_by(layout, node, kept)
            deaf = torch.zeros(1, dtype=torch.bool) if read is None else ~read  # the image is always heard
            blocked[node.name] = deaf.expand(len(kept[node.layer]), -1)  # (units, values read)
    return blocked


def _count(kept: Kept) -> int:
    return sum(int(units.sum()) for units in kept.values())


def _mask(indices: Tensor, units: int) -> Tensor:
    return torch.zeros(units, dtype=torch.bool).index_fill(0, indices, True)


def _indices(kept: Kept) -> dict[str, Tensor]:
    return {layer: units.nonzero().flatten() for layer, units in kept.items()}
