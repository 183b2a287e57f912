"""Learning of one SHARC task: backbone, classifier by replay, and what is remembered."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor

from engram.config.sharc import SharcSettings
from engram.context import LearnContext, WithContext
from engram.data.augmentation import augmented
from engram.data.examples import EVALUATION_BATCH, Examples, batches
from engram.data.herding import ordered_by_class
from engram.methods.sharc.feature_maps import Classifier, FeatureMaps, whole
from engram.methods.sharc.replay import BalancedSampler, Maps, NewMaps, RecalledMaps, logits_of, train
from engram.methods.sharc.replay_memory import ReplayMemory, maps_per_class
from engram.methods.sharc.saliency import mask, saliency
from engram.nn.layout import Layout
from engram.nn.network import Engram, Network, pixels
from engram.recognition.calibration import fitted_temperature
from engram.recognition.heads.head_balance import calibrated
from engram.recognition.recogniser import TaskProfile
from engram.recognition.state import RecogniserState, RecogniserUpdate
from engram.recognition.task_density import TaskDensity, noise_features
from engram.recognition.training import through
from engram.training.distinctive_patches import start_from_patches
from engram.training.trainer import Trainer, TrainingPhase

SAMPLED = 4096
"""Images of a task that the associative memory learns from: enough for means and a covariance, and bounded."""


@dataclass(frozen=True)
class LearnedTask:
    """The parts of a model after one more task; nothing of the model before is changed."""

    maps: FeatureMaps
    shared: Classifier
    own: Classifier | None
    replay_memory: ReplayMemory
    recalled: RecalledMaps
    """What was replayed."""
    head: Tensor
    """(M, classes): logits for the held-out images, the task given."""
    accuracy: float
    """On held-out images, the task given."""
    details: dict[str, object]


@dataclass(frozen=True)
class TaskLearner(WithContext):
    """The learner of one SHARC task, given everything but the model itself."""

    layout: Layout
    settings: SharcSettings
    train: Examples
    held_out: Examples
    context: LearnContext

    def learn(self, maps: FeatureMaps | None, shared: Classifier | None, before: ReplayMemory | None) -> LearnedTask:
        """Learn the task on top of what there is; all three are None for the first task.

        Raises
        ------
        CapacityExhausted, Cancelled
        """
        classes, known = self.train.classes, len(shared.classes) if shared else 0
        generator = self.context.generator()
        self.reporter.report("training", 0.0)
        begun = 0.0
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.context.seed)
            fresh = Classifier(self.layout, classes)
            wider = shared.widened(classes) if shared else Classifier(self.layout, classes)
            engram = whole(self.layout, "", self._labels_of_backbone())
        maps_per_class(
            self.settings, FeatureMaps.of(engram).shape if maps is None else maps.shape, known + len(classes)
        )
        if maps is None:
            self._train_backbone(engram, generator)
            maps, begun = FeatureMaps.of(engram), 0.7
            for classifier in (fresh, wider):
                classifier.start_from(engram)
        maps, wider = maps.to(self.device), wider.to(self.device)
        before = before or ReplayMemory.nothing(self.settings, maps.shape)
        recalled = before.recalled()
        images = self.maps_of(maps, self.train, generator, self.options.augment)
        alone = self.settings.heads == "own"
        middle = (1 + begun) / 2 if alone else 1.0
        phase = TrainingPhase("training", (begun, middle), self.options.epochs, self.options.learning_rate, 1)
        train(wider, NewMaps(images, self.train.labels + known), recalled, phase, generator, self.context)
        own = None
        if alone:
            own = fresh.to(self.device)
            phase = replace(phase, share=(middle, 1.0))
            nothing = RecalledMaps(recalled.maps[:0], recalled.labels[:0])
            train(own, NewMaps(images, self.train.labels), nothing, phase, generator, self.context)
            own = own.freeze()
        wider = wider.freeze()
        replay_memory, details = self.remember_once(maps, wider, before, known, generator)
        logits = self._logits(maps, own or wider, self.held_out)[:, -len(classes) :]  # (M, classes)
        hit = logits.argmax(1) == self.held_out.labels
        return LearnedTask(maps, wider, own, replay_memory, recalled, logits, float(hit.double().mean()), details)

    def _labels_of_backbone(self) -> list[str]:
        return [f"{label} turned {turn}" for turn in self._turns() for label in self.train.classes]

    def _turns(self) -> Sequence[int]:
        """Quarter turns whose images are classes of their own; the first is none."""
        if self.settings.backbone == "classes":
            return (0,)
        height, width = self.train.images.shape[2:]
        return (0, 1, 2, 3) if height == width else (0, 2)

    def _turned(self, examples: Examples) -> Examples:
        turns, count = self._turns(), len(examples.classes)
        images = torch.cat([torch.rot90(examples.images, turn, (2, 3)) for turn in turns])
        labels = torch.cat([examples.labels + count * number for number in range(len(turns))])
        return Examples(images, labels, tuple(self._labels_of_backbone()))

    def _train_backbone(self, engram: Engram, generator: torch.Generator) -> None:
        turned, held_out = self._turned(self.train), self._turned(self.held_out)
        if self.context.recipe > 1:
            start_from_patches(engram, turned, self.context.generator())
        engram.to(self.device)
        trainer = Trainer(Network(self.layout), turned, held_out, self.context, generator)
        phase = TrainingPhase.to_plateau(self.options, (0.0, 0.7))
        trainer.fit(engram, phase)

    def maps_of(self, maps: FeatureMaps, examples: Examples, generator: torch.Generator, augment: str) -> Maps:
        """The maps of examples, each time as `augment` says."""

        def found(chosen: Tensor) -> Tensor:
            images = augmented(pixels(examples.images[chosen].to(self.device)), augment, generator)
            return cast(Tensor, maps(images))

        return found

    def _logits(self, maps: FeatureMaps, classifier: Classifier, examples: Examples) -> Tensor:
        plain = self.maps_of(maps, examples, torch.Generator(), "none")
        return self.reporter.journal.once("logits", lambda: logits_of(classifier, plain, len(examples), self.reporter))

    def remember_once(
        self, maps: FeatureMaps, classifier: Classifier, before: ReplayMemory, known: int, generator: torch.Generator
    ) -> tuple[ReplayMemory, dict[str, object]]:
        """What `remember` gives, which a resumed run takes from its journal."""

        def work() -> tuple[tuple[bytes, bytes], dict[str, object]]:
            after, details = self.remember(maps, classifier, before, known, generator)
            return after.dump(), details

        dumped, details = self.reporter.journal.once("memory", work, generator)
        return ReplayMemory.load(self.settings, *dumped), details

    def remember(
        self, maps: FeatureMaps, classifier: Classifier, before: ReplayMemory, known: int, generator: torch.Generator
    ) -> tuple[ReplayMemory, dict[str, object]]:
        """Forget down to the new quota, let the memory see the new maps, and store as many of them, masked."""
        classes = known + len(self.train.classes)
        most = maps_per_class(self.settings, maps.shape, classes)
        plain = self.maps_of(maps, self.train, generator, "none")
        summaries = self._summaries(maps, self.train)
        chosen = ordered_by_class(summaries, self.train.labels, self.settings.keep, most, generator)
        stored, labels = self._gathered(plain, chosen), self.train.labels[chosen] + known
        sample = torch.randperm(len(self.train), generator=generator)[:SAMPLED]
        after = before.trimmed(most).taught(self._gathered(plain, sample), self.train.labels[sample] + known, classes)
        scores = self._scores(classifier, stored, labels, generator)
        after = after.grown(stored, labels, mask(scores, self.settings.quantile), self.settings)
        self.reporter.report("freezing", 1.0)
        return after, {"memory": after.about(stored)}

    def _scores(self, classifier: Classifier, maps: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """(N, channels): what masks order channels by."""
        if self.settings.saliency == "random":
            return torch.rand(maps.shape[:2], generator=generator)
        parts = []
        for rows in self._parts(len(maps)):
            given, right = maps[rows].to(self.device), labels[rows].to(self.device)
            parts.append(saliency(given, right, classifier).cpu())
        return torch.cat(parts)

    def _summaries(self, maps: FeatureMaps, examples: Examples) -> Tensor:
        plain = self.maps_of(maps, examples, torch.Generator(), "none")
        return torch.cat([maps.summary(plain(part)).cpu() for part in self._parts(len(examples))])

    def _parts(self, count: int) -> Iterator[Tensor]:
        """Batches of indices, asking before each whether to stop."""
        for part in batches(count, EVALUATION_BATCH):
            self.reporter.check()
            yield part

    def _gathered(self, maps: Maps, rows: Tensor) -> Tensor:
        return torch.cat([maps(rows[part]).cpu() for part in self._parts(len(rows))])

    def recognising(self, task: str, state: RecogniserState, outcome: LearnedTask) -> RecogniserUpdate:
        """The state whose class scores are the logits of the head over all classes.

        Its sharpness is fitted to held-out images of the new task and to as many recalled maps of every earlier class.
        These were trained on, so that it is a little too sure of old tasks; nothing better is left of them.
        """
        maps, known = outcome.maps, len(outcome.shared.classes) - len(self.train.classes)
        recogniser = state.recogniser
        commons = state.commons.fitted(self.train.images, self.reporter).eval()
        sums, common = through(commons, self.train, self.held_out, self.reporter, self.device)
        density = TaskDensity.fitted(commons, sums, common, self.train, self.held_out, self.context)
        fresh = self._logits(maps, outcome.shared, self.held_out)  # (M, all classes)
        right = self.held_out.labels + known
        recalled, generator = outcome.recalled, self.context.generator()
        drawn = BalancedSampler(recalled.labels, generator).draw(
            len(right) * recalled.classes // len(self.train.classes)
        )
        past = fresh[:0]
        if len(drawn):
            past = logits_of(outcome.shared, lambda part: recalled.maps[drawn[part]], len(drawn), self.reporter)
        temperature = fitted_temperature(torch.cat([fresh, past]), torch.cat([right, recalled.labels[drawn]]))
        balance, head, within = calibrated(outcome.head, self.held_out, self.train, self.context.recipe)
        if outcome.own is None:
            within = temperature
        classes, scored = len(self.train.classes), density.scored
        profile = TaskProfile(task, classes, density.density, within, over="commons", scored=scored, balance=balance)
        if profile.scored is not None:
            noise = noise_features(commons, self.context, *self.train.images.shape[1:])
            profile = profile.tried(profile.density.p_value(profile.density.distance(noise)))
        profiles = [*recogniser.profiles, profile]
        if outcome.own is None:
            profiles = [replace(profile, temperature=temperature.clone()) for profile in profiles]
        found = replace(recogniser, profiles=tuple(profiles), sharpness=1 / temperature, caution=torch.zeros(()))
        best = fresh.argmax(1)
        self.reporter.report("recognising", 1.0)
        scores = found.log_probabilities(fresh, torch.zeros(len(fresh), len(profiles)))  # which have no weight here
        given = scores.argmax(1)
        ours = given == len(profiles) - 1
        hits = head.argmax(1) == self.held_out.labels
        accuracy, recognised, answered = (float(share.double().mean()) for share in (hits, ours, best == right))
        state = replace(state, commons=commons, recogniser=found)
        return RecogniserUpdate(state, hits, given, accuracy, recognised, answered, profile.novelty(len(self.held_out)))
