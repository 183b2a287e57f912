"""Retention certificates: digests of every task's answers to a fixed probe batch."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar

import torch
from torch import Tensor

from engram.config.definition import InputShape
from engram.config.engines import FIRST_ENGINE, FIRST_PRECISION, Precision
from engram.data.reference.decoder_digest import DecoderDigest
from engram.errors import DamagedSnapshot, InputError, UnknownTask, UnsupportedFormat, require_type
from engram.memory import Memory
from engram.runtime import environment_difference

T = TypeVar("T")

PROBES = 32
"""Images of the probe batch: half seeded noise, half patterns, none of them anybody's data."""

SEED = 20250213

FORMAT = 1
"""Of a certificate as a JSON object."""

Baseline = Literal["first", "certified", "close", "new"]
"""What earlier tasks' answers were compared with when a certificate was made: with nothing, where there were none; with
the certificate before, byte for byte; in another environment with its logits, within `BOUNDS`; or, where these are not
kept, with nothing."""

BOUNDS: Mapping[Precision, float] = {"fp32": 1e-3, "bf16": 2e-2}
"""How far the logits of one task may lie apart in two environments, in multiples of the largest of them, or of 1."""


def probe_batch(shape: InputShape) -> Tensor:
    """The fixed probe images (PROBES, C, H, W) uint8: noise, then stripes, ramps, discs and checks.

    Raises
    ------
    InputError
        for what is no `InputShape`.
    """
    require_type("the shape of images", shape, InputShape, InputError)
    generator = torch.Generator().manual_seed(SEED)
    half = PROBES // 2
    size = (shape.channels, shape.height, shape.width)
    noise = torch.randint(0, 256, (half, *size), generator=generator, dtype=torch.uint8)
    rows = torch.linspace(-1, 1, shape.height)[:, None].expand(shape.height, shape.width)
    columns = torch.linspace(-1, 1, shape.width)[None, :].expand(shape.height, shape.width)
    patterns = []
    for number in range(PROBES - half):
        frequency, kind = 1 + number // 4, number % 4
        wave = (
            torch.sin(3 * frequency * rows),
            torch.sin(3 * frequency * columns),
            torch.where(rows.square() + columns.square() < 1 / frequency, 1.0, -1.0),
            torch.sign(torch.sin(5 * frequency * rows) * torch.sin(5 * frequency * columns)),
        )[kind]
        shifts = torch.arange(shape.channels)[:, None, None] * 0.25
        patterns.append(((wave * 0.5 + 0.5 - shifts * wave.abs()).clamp(0, 1) * 255).to(torch.uint8))
    return torch.cat([noise, torch.stack(patterns)])


def digest(logits: Tensor) -> str:
    """SHA-256 of the bytes of float32 logits.

    Raises
    ------
    InputError
        for what is no tensor.
    """
    require_type("logits", logits, Tensor, InputError)
    return hashlib.sha256(logit_bytes(logits)).hexdigest()


def logit_bytes(logits: Tensor) -> bytes:
    """The bytes of float32 logits, as they are digested and kept."""
    return logits.detach().to(torch.float32).contiguous().cpu().numpy().tobytes()


@dataclass(frozen=True)
class Certificate:
    """For every task a digest of its logits on the probe batch, and the environment that they hold in.

    Two certificates of one model may only be compared if their environments agree; `routing` reports what the
    recogniser did when each task was learned, which exactness does not cover.
    """

    tasks: dict[str, str]
    environment: dict[str, object]
    routing: dict[str, dict[str, float]] = field(default_factory=dict)
    exact: bool = True
    """Whether the method promises that no digest ever changes."""
    answers: dict[str, list[int]] = field(default_factory=dict)
    """Where nothing exact is promised: which class each task gave to each probe on the day it was learned."""
    agreement: dict[str, float] = field(default_factory=dict)
    """And the share of these that it still gives: the forgetting that can be measured with no image kept."""
    decoder: DecoderDigest | None = None
    """What the decoder makes of encoded images; None in certificates of 0.1.0."""
    classes: dict[str, dict[str, object]] = field(default_factory=dict)
    """How the classes of each task fared when it was learned: `balanced_accuracy`, and `per_class` as in the learning
    report. Tasks that an earlier release learned have none."""
    shapes: dict[str, dict[str, str]] = field(default_factory=dict)
    """For tasks of a model whose answers do not depend on an image's neighbours: by the number of images that were
    computed together, a digest of the logits."""
    checked_in: dict[str, int] = field(default_factory=dict)
    """For each task the version that its digests were last computed for; those of tasks whose networks were not read
    are those of an earlier version. Nothing in certificates of earlier releases, which computed all of them."""
    mixed_precision: frozenset[str] = frozenset()
    """The tasks that were learned with the option of that name."""
    engine: str = FIRST_ENGINE
    """What computed the answers; certificates of earlier releases name none, and were made with the first."""
    baseline: Baseline | str | None = None
    """None in certificates of earlier releases; later ones may know others."""
    reason: str | None = None
    """A sentence: why the baseline is `close` or `new`."""
    logits: dict[str, bytes] = field(default_factory=dict, compare=False, repr=False)
    """The logits themselves of the tasks that were asked just now, float32 as they are digested; no part of the JSON
    object."""

    def elsewhere(self, here: Certificate) -> str | None:
        """What computes differently for another certificate, as part of a sentence; None where they may be compared.

        Those of earlier releases name no processor: where other answers are given, it may have been another one.
        """
        if self.engine != here.engine:
            return f"engine {here.engine} instead of {self.engine}"
        difference = environment_difference(self.environment, here.environment)
        if difference is None and "processor" not in self.environment and self._changed(here):
            return "the certificate does not name its processor"
        return difference

    def _changed(self, here: Certificate) -> bool:
        """Whether some task that both were asked about has other digests in another certificate."""
        return any(task in here.tasks for task in compare(self, here))

    def following(self, earlier: Certificate) -> Certificate:
        """This one, with what an earlier one says of the tasks that this one says nothing of."""
        return replace(
            self,
            tasks={**earlier.tasks, **self.tasks},
            answers={**earlier.answers, **self.answers},
            agreement={**earlier.agreement, **self.agreement},
            shapes={**earlier.shapes, **self.shapes},
            checked_in={**earlier.checked_in, **self.checked_in},
            mixed_precision=earlier.mixed_precision | self.mixed_precision,
        )

    def to_dict(self) -> dict[str, object]:
        return {
            "format": FORMAT,
            "exact": self.exact,
            "probes": {"images": PROBES, "seed": SEED},
            "tasks": [self._row(task, value) for task, value in self.tasks.items()],
            "environment": self.environment,
            "engine": self.engine,
            **({} if self.baseline is None else {"baseline": self.baseline}),
            **({} if self.reason is None else {"baseline_reason": self.reason}),
            "routing": self.routing,
            "classes": self.classes,
            **({} if self.exact else {"answers_when_learned": self.answers, "agreement": self.agreement}),
            **({} if self.decoder is None else {"decoder": self.decoder.to_dict()}),
        }

    def _row(self, task: str, value: str) -> dict[str, object]:
        row: dict[str, object] = {"task": task, "logits_sha256": value}
        if task in self.shapes:
            row["shapes"] = self.shapes[task]
        if task in self.checked_in:
            row["checked_in"] = self.checked_in[task]
        if task in self.mixed_precision:
            row["mixed_precision"] = True
        return row

    @classmethod
    def from_dict(cls, data: Mapping[str, object]) -> Certificate:
        """From a JSON object.

        Raises
        ------
        UnsupportedFormat
        DamagedSnapshot
            for a part of another type than certificates have there, or what is no JSON object.
        KeyError
            for a part that is missing.
        """
        require_type("a certificate", data, Mapping, DamagedSnapshot)
        if (version := data["format"]) != FORMAT:
            raise UnsupportedFormat(f"this certificate is of format {version}; this version reads format {FORMAT}")
        tasks = _part(list, data["tasks"], "a certificate lists its tasks")
        routing = _part(dict, data["routing"], "a certificate has routing figures")
        where = _part(dict, data["environment"], "a certificate names its environment")
        answers = data.get("answers_when_learned", {})
        answers = _part(dict, answers, "a certificate has the answers when learned by task")
        agreement = _part(dict, data.get("agreement", {}), "a certificate has the agreement by task")
        for task, then in answers.items():
            _part(list, then, f"a certificate lists the answers of task {task!r} when learned")
        classes = _part(dict, data.get("classes", {}), "a certificate has figures of classes by task")
        for task, figures in classes.items():
            _part(dict, figures, f"a certificate has figures of the classes of task {task!r}")
        rows = {
            _name(row): row for row in (_part(dict, row, "each task of a certificate is an object") for row in tasks)
        }
        digests = {name: _digest(name, row["logits_sha256"]) for name, row in rows.items()}
        shapes = {name: _shapes(name, row["shapes"]) for name, row in rows.items() if "shapes" in row}
        checked = {name: _version(name, row["checked_in"]) for name, row in rows.items() if "checked_in" in row}
        decoder = None if data.get("decoder") is None else DecoderDigest.from_dict(data["decoder"])
        exact = bool(data["exact"])
        engine = _part(str, data.get("engine", FIRST_ENGINE), "a certificate names its engine")
        baseline, reason = data.get("baseline"), data.get("baseline_reason")
        return cls(
            digests,
            where,
            routing,
            exact,
            answers,
            agreement,
            decoder,
            classes,
            shapes,
            checked,
            frozenset(name for name, row in rows.items() if row.get("mixed_precision", False)),
            engine,
            None if baseline is None else _part(str, baseline, "a baseline has a name"),
            None if reason is None else _part(str, reason, "the reason of a baseline is a sentence"),
        )


def _name(row: dict[str, object]) -> str:
    return _part(str, row["task"], "each task of a certificate has a name")


def _digest(task: str, value: object) -> str:
    return _part(str, value, f"a certificate has a digest for task {task!r}")


def _shapes(task: str, found: object) -> dict[str, str]:
    by_shape = _part(dict, found, f"a certificate has the digests of task {task!r} by shape")
    return {_part(str, shape, "shapes are numbers as text"): _digest(task, value) for shape, value in by_shape.items()}


def _version(task: str, found: object) -> int:
    return _part(int, found, f"a certificate names the version that task {task!r} was checked in")


def _part(kind: type[T], value: object, sentence: str) -> T:
    if not isinstance(value, kind):
        raise DamagedSnapshot(sentence)
    return value


def certify(
    memory: Memory,
    routing: Mapping[str, dict[str, float]] | None = None,
    learned: Mapping[str, list[int]] | None = None,
    classes: Mapping[str, dict[str, object]] | None = None,
    tasks: Collection[str] | None = None,
) -> Certificate:
    """Run the probe batch through every task, here and now.

    Parameters
    ----------
    routing
        What the recogniser did when each task was learned.
    learned
        For methods that promise nothing exact, the `answers` of earlier certificates; today's count for other tasks.
    classes
        How the classes of each task fared when it was learned.
    tasks
        The only ones to run, and to say something of; by default all.

    Raises
    ------
    InputError
        for what is no `Memory`, for `routing`, `learned` or `classes` that are no mappings, or for `tasks` that are no
        collection.
    UnknownTask
        for one of `tasks` that the model does not have.
    DamagedSnapshot
        What was learned is no list of as many answers as the probe batch has images.
    """
    require_type("the model", memory, Memory, InputError)
    for name, given in (("routing", routing), ("learned", learned), ("classes", classes)):
        if given is not None:
            require_type(name, given, Mapping, InputError)
    memory = Memory(memory.method.current())
    digests, answers, agreement, shapes, kept = {}, {}, {}, {}, {}
    for name, logits, by_shape in probe_logits(memory, tasks):
        kept[name] = logit_bytes(logits)
        digests[name] = hashlib.sha256(kept[name]).hexdigest()
        if by_shape:
            shapes[name] = {str(shape): digest(alike) for shape, alike in by_shape.items()}
        if not memory.exact:
            now: list[int] = logits.argmax(1).tolist()
            answers[name] = then = (learned or {}).get(name, now)
            _part(list, then, f"the answers of task {name!r} when learned are a list")
            if len(then) != len(now):
                raise DamagedSnapshot(f"task {name!r} has {len(then)} answers to {len(now)} probe images")
            agreement[name] = sum(a == b for a, b in zip(now, then, strict=True)) / len(now)
    where, definition, figures = memory.method.environment(), memory.definition, dict(classes or {})
    proof = Certificate(digests, where, dict(routing or {}), memory.exact, answers, agreement, shapes=shapes)
    decoder = DecoderDigest.of(definition)
    return replace(proof, decoder=decoder, classes=figures, engine=definition.engine, logits=kept)


@torch.no_grad()
def probe_logits(
    memory: Memory, tasks: Collection[str] | None = None, *, every_shape: bool = True
) -> Iterator[tuple[str, Tensor, dict[int, Tensor]]]:
    """For each task in question the logits (PROBES, classes) of the probe batch, and those by shape.

    Parameters
    ----------
    tasks
        By default all.
    every_shape
        Otherwise the largest alone, which takes a fraction of the time.

    Raises
    ------
    UnknownTask, InputError
        As `certify`.
    """
    known = [info.name for info in memory.tasks]
    if tasks is not None:
        require_type("tasks", tasks, Collection, InputError)
        if strange := sorted(set(tasks) - set(known)):
            raise UnknownTask(f"the model has no task {strange[0]!r}")
    names = [name for name in known if tasks is None or name in tasks]
    if not names:
        return
    probes, method = probe_batch(memory.definition.input), memory.method
    if method.shapes:
        # The largest gives what `observe` gives for a task, which may read more than logits take.
        largest = max(method.shapes)
        shapes = method.shapes if every_shape else (largest,)
        for name, found in method.logits_by_shape(names, probes, shapes).items():
            yield name, found[largest], found
        return
    observation = memory.observe(probes)
    yield from ((name, observation.logits(name), {}) for name in names)


def compare(old: Certificate, new: Certificate) -> list[str]:
    """Names of the old certificate's tasks of which the new one does not repeat a digest.

    Shapes that only one of them names are not compared.

    Raises
    ------
    InputError
        for what is no `Certificate`.
    """
    require_type("the old certificate", old, Certificate, InputError)
    require_type("the new certificate", new, Certificate, InputError)
    return [task for task, value in old.tasks.items() if new.tasks.get(task) != value or _differ(task, old, new)]


def _differ(task: str, old: Certificate, new: Certificate) -> bool:
    now = new.shapes.get(task, {})
    return any(now.get(shape, value) != value for shape, value in old.shapes.get(task, {}).items())


def disagreement(certified: bytes, here: bytes, precision: Precision = FIRST_PRECISION) -> str | None:
    """How the logits of one environment are not those of another; None where they lie within `BOUNDS`.

    Then the labels are the same, too, but for probes whose two best classes lie no further apart than twice that.

    Parameters
    ----------
    certified, here
        The logits of one task, as `logit_bytes` gives them.
    precision
        Of the model.
    """
    if len(certified) != len(here):
        return f"there are {len(here) // 4} logits instead of {len(certified) // 4}"
    then, now = (torch.frombuffer(bytearray(data), dtype=torch.float32) for data in (certified, here))
    most = BOUNDS[precision] * max(1.0, float(then.abs().max()))
    apart = float((now - then).abs().max())
    # Of what is not a number, neither is true.
    return None if apart <= most else f"logits differ by {apart:.3g}, which is more than {most:.3g}"
