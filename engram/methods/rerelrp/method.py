"""ReReLRP: relevance decides what is frozen, and relevance signatures recognise the task.

After ReReLRP (arXiv 2502.10789), in two forms that differ in their sub-networks alone: one conventional network, as
published, or blocks, where one pass gives every signature.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Self

import torch
from torch import Tensor

from engram.checkpointing.pieces import Piece
from engram.checkpointing.progress import Reporter
from engram.config.definition import Definition
from engram.config.rerelrp import RerelrpSettings
from engram.context import LearnContext
from engram.data.examples import EVALUATION_BATCH, Examples, batches
from engram.data.herding import select_exemplars
from engram.errors import AnswersOnly, DamagedSnapshot
from engram.explain.explainer import Heatmap
from engram.methods.base import Method, StoredModel, expect_accurate, expect_recognised
from engram.methods.rerelrp.block_subnetworks import BlockSubnetworks
from engram.methods.rerelrp.detectors import DetectorChain
from engram.methods.rerelrp.forest import ForestSize
from engram.methods.rerelrp.frozen_subnetworks import FrozenSubnetworks
from engram.methods.rerelrp.recogniser import SignatureRecogniser
from engram.methods.rerelrp.signatures import Signatures, most_relevant
from engram.methods.rerelrp.subnetworks import SubnetworkPass, Subnetworks
from engram.nn.backbones import layout_of
from engram.nn.capacity import LayerCapacity, TaskInfo, budget_of
from engram.nn.commons import Commons, commons_of
from engram.nn.network import pixels
from engram.recognition.heads.head_balance import calibrated
from engram.recognition.predictions import Observation
from engram.recognition.recogniser import TaskProfile, balances_of
from engram.recognition.task_density import TaskDensity, noise_features
from engram.recognition.training import through
from engram.training.report import LearningReport

HELD_OUT = 512
"""Held-out images of a task, at most, whose signatures are kept to calibrate detectors by."""


class Rerelrp(Method):
    """A sub-network for each task, and a chain of detectors over what is relevant in them."""

    def __init__(
        self,
        definition: Definition,
        budget: Mapping[str, int],
        subnetworks: Subnetworks,
        recogniser: SignatureRecogniser,
        signatures: tuple[Signatures, ...] | None,
    ) -> None:
        super().__init__(definition, budget)
        self.settings = RerelrpSettings.model_validate(definition.settings)
        self.subnetworks = subnetworks
        self.recogniser = recogniser
        self.signatures = signatures
        self.commons = _commons(definition, recogniser).to(subnetworks.device)

    @classmethod
    def create(cls, definition: Definition, weights: Sequence[bytes | Piece] = ()) -> Self:
        cls.check(definition)
        budget = budget_of(layout_of(definition), definition.budget)
        return cls(definition, budget, _form(definition).create(definition), SignatureRecogniser(), ())

    @classmethod
    def restore(
        cls,
        definition: Definition,
        engrams: Sequence[bytes],
        recogniser: bytes,
        kept: Sequence[bytes] | None,
        budget: Mapping[str, int],
        reuse: Self | None = None,
    ) -> Self:
        known = SignatureRecogniser.load(recogniser)
        count = len(known.profiles)
        shared = None if kept is None else kept[count:]
        beside = None if reuse is None else reuse.subnetworks
        subnetworks = _form(definition).restore(definition, engrams, shared, beside)
        if [profile.task for profile in known.profiles] != [info.name for info in subnetworks.tasks]:
            raise DamagedSnapshot("the recogniser belongs to other tasks than the engrams do")
        signatures = None if kept is None else tuple(Signatures.load(piece) for piece in kept[:count])
        if signatures is not None:
            known.check(signatures)
        return cls(definition, budget, subnetworks, known, signatures)

    def dump(self) -> StoredModel:
        signatures = tuple(piece.dump() for piece in self._required_signatures())
        engrams, shared = self.subnetworks.dump()
        return StoredModel(engrams, self.recogniser.dump(), (*signatures, *shared))

    @property
    def tasks(self) -> tuple[TaskInfo, ...]:
        return self.subnetworks.tasks

    @property
    def exact(self) -> bool:
        return True

    @property
    def device(self) -> torch.device:
        return self.subnetworks.device

    def to(self, device: torch.device | str) -> None:
        self.subnetworks.to(device)
        self.commons.to(device)

    def admit(self, task: str) -> None:
        super().admit(task)
        self.subnetworks.admit(self.budget)

    def learn(self, task: str, examples: Examples, context: LearnContext) -> LearningReport:
        earlier = self._required_signatures()
        options = context.options.model_copy(update={"score": "lrp"})
        context = replace(context, options=options)
        subnetworks, report, train, held_out = self.subnetworks.learned(self.budget, task, examples, context)
        report.accuracy.pop("network", None)
        with report.timed("recognising"):
            recogniser, signatures, head = self._taught(subnetworks, task, train, held_out, context)
        hits = head.argmax(1) == held_out.labels
        report.judge(hits, held_out)
        expect_accurate(report, options)
        judged = _judged(held_out)
        log_tasks = recogniser.log_probabilities(signatures.held_out[:-1], len(judged))
        given = log_tasks.argmax(1)
        right = given == len(earlier)
        report.recognised = float(right.double().mean())
        report.answered = float((right & hits[judged]).double().mean())
        report.route(given, [profile.task for profile in recogniser.profiles])
        report.novelty = recogniser.profiles[-1].novelty(len(held_out))
        report.details["detector_bytes"] = recogniser.chain.nbytes
        expect_recognised(report, options)
        self.subnetworks, self.recogniser = subnetworks, recogniser
        self.commons = _commons(self.definition, recogniser).to(self.device)
        self.signatures = (*earlier, signatures)
        return report

    def _required_signatures(self) -> tuple[Signatures, ...]:
        """The signatures of each task; raises AnswersOnly where the model was restored without them."""
        if self.signatures is None:
            raise AnswersOnly("the model was restored without relevance signatures, which learning and saving need")
        return self.signatures

    def _taught(
        self, subnetworks: Subnetworks, task: str, train: Examples, held_out: Examples, context: LearnContext
    ) -> tuple[SignatureRecogniser, Signatures, Tensor]:
        """The recogniser of one task more, the task's signatures, and the logits (M, classes) that decide between its
        classes, for the held-out images."""
        reporter, once = context.reporter, context.reporter.journal.once
        own, _ = once("features", lambda: _newest(subnetworks, train, reporter, 0.0))
        _, head = once("held out", lambda: _newest(subnetworks, held_out, reporter, 0.15))
        herd = once("exemplars", lambda: select_exemplars(own, train.labels, self.settings.exemplars))
        learned = once("relevance", lambda: _relevance(subnetworks, train.subset(herd), reporter, 0.2))
        columns = (*self.recogniser.columns, most_relevant(learned[-1], self.settings.features))
        some = _judged(held_out)
        relevance = once("judged", lambda: _relevance(subnetworks, held_out.subset(some), reporter, 0.4))
        signatures = Signatures(_cut(learned, columns), _cut(relevance, columns))
        classes = len(train.classes)
        commons = self.commons.fitted(train.images, reporter).eval()
        found = TaskDensity.fitted(
            commons, *through(commons, train, held_out, reporter, self.device), train, held_out, context
        )
        balance, head, temperature = calibrated(head, held_out, train, context.recipe)
        profile = TaskProfile(
            task, classes, found.density, temperature, over="commons", scored=found.scored, balance=balance
        )
        if profile.scored is not None:
            noise = noise_features(commons, context, *train.images.shape[1:])
            profile = profile.tried(profile.density.p_value(profile.density.distance(noise)))
        growth = ForestSize(self.settings.trees, self.settings.depth, self.settings.leaf)
        chain = DetectorChain.trained((*self._required_signatures(), signatures), growth, context.seed, reporter)
        state = {name: tensor.cpu() for name, tensor in commons.state_dict().items()}
        recogniser = SignatureRecogniser((*self.recogniser.profiles, profile), columns, chain, state)
        reporter.report("recognising", 1.0)
        return recogniser, signatures, head

    def observe(self, images: Tensor) -> Observation:
        explained = len(self.recogniser.profiles) - 1
        given = pixels(images.to(self.device))
        forward = self.subnetworks.forward(given, explained)
        signatures = _cut(forward.relevance, self.recogniser.columns[:explained])
        return Observation(
            self.tasks,
            forward.heads,
            torch.stack([profile.temperature for profile in self.recogniser.profiles]),
            self.recogniser.log_probabilities(signatures, len(images)),
            self.recogniser.p_values(forward.features, self.commons(given).cpu()),
            self.subnetworks.passes(explained),
            tuple(profile.level for profile in self.recogniser.profiles),
            tuple(profile.vouches for profile in self.recogniser.profiles),
            balances_of(self.recogniser.profiles),
        )

    def explain(self, image: Tensor, owner: int, target: int, composite: str) -> Heatmap:
        return self.subnetworks.explain(image, owner, target, composite)

    def capacity(self) -> list[LayerCapacity]:
        return self.subnetworks.capacity(self.budget)

    def raise_budget(self, budget: float | Mapping[str, int]) -> None:
        self.budget = self.subnetworks.raised(self.budget, budget)


def _form(definition: Definition) -> type[Subnetworks]:
    form = RerelrpSettings.model_validate(definition.settings).form
    return BlockSubnetworks if form == "blocks" else FrozenSubnetworks


def _commons(definition: Definition, recogniser: SignatureRecogniser) -> Commons:
    """The commons that the recogniser stores; as they are made if it stores none.

    Raises
    ------
    DamagedSnapshot
    """
    commons = commons_of(definition)
    if recogniser.commons:
        try:
            commons.load_state_dict(dict(recogniser.commons))
        except RuntimeError as error:
            raise DamagedSnapshot(f"the commons do not fit the model's definition: {error}") from error
    return commons.eval()


def _judged(held_out: Examples) -> Tensor:
    """Indices of the held-out images whose signatures are kept."""
    return torch.linspace(0, len(held_out) - 1, min(HELD_OUT, len(held_out))).long()


def _cut(relevance: Sequence[Tensor], columns: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Signatures (B, features) from the relevance (B, units) in each task's sub-network."""
    return tuple(whole[:, chosen].contiguous() for whole, chosen in zip(relevance, columns, strict=True))


def _newest(subnetworks: Subnetworks, examples: Examples, reporter: Reporter, within: float) -> tuple[Tensor, Tensor]:
    """Features (N, F) and logits (N, classes) of the newest task."""
    seen = []
    for chosen in batches(len(examples), EVALUATION_BATCH):
        reporter.report("recognising", within)
        seen.append(subnetworks.newest(pixels(examples.images[chosen].to(subnetworks.device))))
    features, logits = zip(*seen, strict=True)
    return torch.cat(features), torch.cat(logits)


def _relevance(subnetworks: Subnetworks, examples: Examples, reporter: Reporter, within: float) -> list[Tensor]:
    """For each task the relevance (N, units) in its sub-network."""
    seen: list[SubnetworkPass] = []
    for chosen in batches(len(examples), EVALUATION_BATCH):
        reporter.report("recognising", within)
        given = pixels(examples.images[chosen].to(subnetworks.device))
        seen.append(subnetworks.forward(given, len(subnetworks.tasks)))
    return [torch.cat(parts) for parts in zip(*(forward.relevance for forward in seen), strict=True)]
