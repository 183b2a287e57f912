"""One task in a shared network, as ReReLRP learns it: train, prune what is least relevant, freeze the rest."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor

from engram.blocks import ConvBlock, DenseBlock
from engram.data import Examples, split
from engram.elastic import Elastic, hold, spread, weight_of
from engram.network import Engram, Network
from engram.options import LearnOptions
from engram.plain import Kept, Owners, PlainNetwork, claimed, read_by, relevances, renewed
from engram.progress import Reporter
from engram.pruning import choose
from engram.report import LearningReport
from engram.scores import SCORED_IMAGES, Scores
from engram.signatures import normalised
from engram.training import OptimiserFactory, Run, Trainer, measure, optimiser_of


@dataclass
class Freezer:
    """Learns one task in a network of which some units are frozen.

    Parameters
    ----------
    shared
        What all tasks share today; nothing of it is changed.
    step
        Share of all units that each step of pruning takes away.
    seed
        Of the first weights, the order of images, and every random choice.
    """

    shared: PlainNetwork
    step: float
    seed: int
    options: LearnOptions
    reporter: Reporter
    device: torch.device
    optimiser: OptimiserFactory | None = None

    def learn(
        self, task: str, examples: Examples, number: int
    ) -> tuple[PlainNetwork, Engram, LearningReport, Examples, Examples]:
        """Learn the task of this number, counted from 1.

        Returns
        -------
        The shared network afterwards, the task's frozen sub-network as an engram on an empty stack, the report so far,
        the images it was learned from and the images it was judged by.

        Raises
        ------
        ExamplesError, Cancelled
        """
        train, held_out = split(examples, self.options.held_out, self.seed)
        counts = dict(zip(train.classes, train.counts(), strict=True))
        report = LearningReport(task, counts, len(held_out), self.options.model_dump(mode="json"))
        report.candidate = {layer: int((owner == 0).sum()) for layer, owner in self.shared.owners.items()}
        candidate, trainer = self._candidate(task, train, held_out)
        with report.timed("training"):
            run = Run("training", (0.0, 1.0), self.options.epochs, self.options.learning_rate, self.options.patience)
            report.accuracy["trained"] = trainer.fit(candidate, run).accuracy
        with report.timed("pruning"):
            kept = self._pruned(candidate, trainer)
        self.reporter.report("freezing", 1.0)
        owners = claimed(self.shared.owners, kept, number)
        engram = copy.deepcopy(candidate.narrowed(_indices(kept))).to(self.device).freeze()
        report.units = {layer: int((owner == number).sum()) for layer, owner in owners.items()}
        report.details["subnetwork"] = dict(engram.units)
        report.accuracy["network"] = measure(Network(self.shared.layout), engram, held_out, self.device).accuracy
        return self._frozen(candidate, owners, kept, number), engram, report, train, held_out

    def _candidate(self, task: str, train: Examples, held_out: Examples) -> tuple[Engram, Trainer]:
        """The network as it is trained: free units move, frozen ones do not."""
        candidate = self.shared.candidate(task, train.classes, self.seed).to(self.device)
        candidate.requires_grad_(True)
        rates = self.shared.rates(0.0)
        hold(candidate, rates)
        make = Elastic(self.optimiser or (lambda given: optimiser_of(self.options, given)), candidate, rates)
        generator = torch.Generator().manual_seed(self.seed)
        empty = Network(self.shared.layout)
        return candidate, Trainer(empty, train, held_out, self.options, self.reporter, self.device, generator, make)

    def _pruned(self, candidate: Engram, trainer: Trainer) -> Kept:
        """What is left when the least relevant units have gone, step by step, as long as accuracy holds."""
        whole = {layer: torch.ones(units, dtype=torch.bool) for layer, units in candidate.units.items()}
        if not self.options.prune:
            return whole
        scores, judged = self._scores(candidate, trainer), trainer.judged
        least = self._accuracy(candidate, judged) - self.options.tolerance
        kept, share = whole, 1.0
        while (share := share - self.step) > 0:
            self.reporter.report("pruning", 1 - share, units=sum(int(units.sum()) for units in kept.values()))
            chosen = choose(scores, share, self.options.floor)
            if self._accuracy(candidate.narrowed(chosen), judged) < least:
                break
            kept = {layer: _mask(chosen[layer], units) for layer, units in candidate.units.items()}
        return kept

    def _accuracy(self, engram: Engram, examples: Examples) -> float:
        self.reporter.check()
        return measure(Network(engram.layout), engram.to(self.device), examples, self.device).accuracy

    def _scores(self, candidate: Engram, trainer: Trainer) -> Scores:
        """The relevance of each unit: normalised for each image and layer, summed over images, of mean 1 in a layer."""
        chosen = torch.randperm(len(trainer.train), generator=trainer.generator)[:SCORED_IMAGES]
        totals = {layer: torch.zeros(units) for layer, units in candidate.units.items()}
        for found in relevances(candidate, trainer.train.subset(chosen), self.reporter, self.device):
            for layer, relevance in found.items():
                totals[layer] += normalised(relevance).sum(0)
        return {layer: total / total.abs().mean().clamp_min(1e-30) for layer, total in totals.items()}

    @torch.no_grad()
    def _frozen(self, candidate: Engram, owners: Owners, kept: Kept, number: int) -> PlainNetwork:
        """The shared network after the task: what it pruned is drawn anew, and acts on none of what it froze."""
        learned = copy.deepcopy(candidate).eval()
        for node in learned.layout.nodes:
            block, read = learned.block(node), read_by(learned.layout, node, kept) if node.mixing else None
            if read is not None and isinstance(block, DenseBlock | ConvBlock):
                weight, new = weight_of(block), owners[node.layer] == number
                weight.masked_fill_(spread(new[:, None] & ~read[None, :], weight), 0.0)
        renewed(learned, {layer: owner == 0 for layer, owner in owners.items()}, self.seed)
        for parameter in learned.parameters():
            parameter.requires_grad_(False)
            parameter.grad = None
        return PlainNetwork(self.shared.layout, self.shared.units, learned.blocks, owners, ())


def _mask(indices: Tensor, units: int) -> Tensor:
    return torch.zeros(units, dtype=torch.bool).index_fill(0, indices, True)


def _indices(kept: Kept) -> dict[str, Tensor]:
    return {layer: units.nonzero().flatten() for layer, units in kept.items()}
