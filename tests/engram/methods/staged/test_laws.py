"""Laws of staged models: nothing outside a closure counts, a task leaves no trace, sums have no order."""

from __future__ import annotations

import itertools
from functools import cache
from typing import Literal

import pytest
import torch
from torch import nn

from engram import Definition, Examples, Memory
from engram.checkpointing.pieces import Piece, bytes_of
from engram.checkpointing.tensors import content_hash
from engram.errors import CommonsNeedsClasses, InputError, NoNetwork, TooFewClasses
from engram.memory import dump, restore
from engram.methods.eidetic.staged.method import StagedEidetic
from engram.methods.eidetic.staged.removal import without
from engram.recognition.staged.observation import StagedObservation
from engram.snapshot import Parts
from testing.data.patterns import QUICK, bars, definition

READS = ("selected", "commons")


def defined(reads: str, backbone: str = "cnn", **changes: object) -> Definition:
    return definition(backbone, 1, settings={"reads": reads, "contenders": 2}, budget=4.0, recipe=3, **changes)


def learned(reads: str, tasks: tuple[int, ...], backbone: str = "cnn") -> Memory:
    memory = Memory.create(defined(reads, backbone))
    for task in tasks:
        memory.learn(f"task {task}", bars(task), QUICK)
    return memory


@cache
def parts_of(reads: str, tasks: tuple[int, ...], backbone: str = "cnn") -> Parts:
    return dump(learned(reads, tasks, backbone))


def served(parts: Parts) -> Memory:
    return restore(parts.definition, parts.engrams, parts.recogniser, None, parts.budget)


def model(memory: Memory) -> StagedEidetic:
    assert isinstance(memory.method, StagedEidetic)
    return memory.method


def everything(images: int = 24) -> torch.Tensor:
    return torch.cat([bars(task, 4).images for task in range(3)])[:images]


@pytest.mark.parametrize("gone", [1, 2])
def test_a_model_less_a_task_is_one_that_never_learned_it(gone: int) -> None:
    parts = parts_of("commons", (0, 1, 2))
    whole = model(restore(parts.definition, parts.engrams, parts.recogniser, parts.kept, parts.budget))
    less = without(f"task {gone}", whole.commons, whole.recogniser, whole.staged, whole.required_sums())
    never = parts_of("commons", tuple(task for task in range(3) if task != gone))
    recogniser, tasks, sums = less
    assert recogniser.dump() == never.recogniser
    assert tuple(map(bytes_of, sums.pieces)) == tuple(map(bytes_of, never.kept))
    pieces = [bytes_of(piece) for task in tasks for piece in task.stored]
    assert pieces == [bytes_of(piece) for piece in never.engrams[1:]]


def test_the_first_task_and_what_others_read_cannot_be_taken_away() -> None:
    whole = model(learned("commons", (0, 1)))
    with pytest.raises(InputError, match="calibrated"):
        without("task 0", whole.commons, whole.recogniser, whole.staged, whole.required_sums())


def test_the_order_of_samples_changes_no_byte_of_the_sums() -> None:
    """Filters of the smooth kind are the same for any order, and sums over them must be."""
    examples, found = bars(0), []
    for seed in (None, 1, 2):
        order = torch.arange(len(examples))
        if seed is not None:
            order = torch.randperm(len(examples), generator=torch.Generator().manual_seed(seed))
        memory = Memory.create(defined("commons"))
        memory.learn("task 0", examples.subset(order), QUICK)
        kept = dump(memory).kept
        found.append((bytes_of(kept[0]), bytes_of(kept[1])))
    assert found[1] == found[0]
    assert found[2] == found[0]


@pytest.mark.parametrize(
    ("backbone", "reads"),
    [
        *itertools.product(("mlp", "cnn"), READS),
        *(pytest.param("resnet18", reads, marks=pytest.mark.slow) for reads in READS),
    ],
)
def test_nothing_outside_a_closure_counts(reads: str, backbone: str) -> None:
    memory = served(parts_of(reads, (0, 1, 2), backbone))
    images = everything()
    expected = [memory.observe(images, f"task {task}").logits(f"task {task}") for task in range(3)]
    for task in range(3):
        poisoned = served(parts_of(reads, (0, 1, 2), backbone))
        network = model(poisoned).serving().network
        needed = network.closure(f"task {task}").nodes
        for engram in network.stack:
            for name, module in engram.named_children():
                if engram.task not in needed or (name != "blocks" and engram.task != f"task {task}"):
                    _poison(module)
            for name, block in engram.blocks.named_children():
                if name not in needed.get(engram.task, ()):
                    _poison(block)
        for number, one in enumerate(model(poisoned).serving().served):
            if number != task:
                one.profile.density.means.fill_(torch.nan)
        found = poisoned.observe(images, f"task {task}").logits(f"task {task}")
        assert found.numpy().tobytes() == expected[task].numpy().tobytes()


def _poison(module: nn.Module) -> None:
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.is_floating_point():
            tensor.data.fill_(torch.nan)


@pytest.mark.parametrize("reads", READS)
def test_an_images_logits_are_the_same_bytes_in_any_row_beside_any_neighbours(reads: str) -> None:
    memory = served(parts_of(reads, (0, 1, 2)))
    method, images = model(memory), everything()
    generator = torch.Generator().manual_seed(5)
    for shape in method.shapes:
        alone: dict[int, bytes] = {}
        for _ in range(6):
            order = torch.randperm(len(images), generator=generator)[:shape]
            logits = method.logits_in_shape("task 1", images[order], shape)
            for row, number in enumerate(order.tolist()):
                bytes_now = logits[row].numpy().tobytes()
                assert alone.setdefault(number, bytes_now) == bytes_now


@pytest.mark.parametrize("contenders", [1, 2, 3, "all"])
def test_probabilities_are_complete_and_sum_to_one(contenders: int | Literal["all"]) -> None:
    memory = served(parts_of("selected", (0, 1, 2)))
    for one in memory.predict(everything(), top_k=6, contenders=contenders):
        assert len(one.top) == 6
        assert sum(candidate.probability for candidate in one.top) == pytest.approx(1, abs=1e-5)
        assert [c.probability for c in one.top] == sorted((c.probability for c in one.top), reverse=True)
        ran = set(one.ran)
        assert one.task in ran or contenders == 1
        assert {c.task for c in one.top if c.evidence == "head"} <= ran
        assert {c.task for c in one.top if c.evidence == "ridge"}.isdisjoint(ran)
        if contenders == "all":
            assert ran == {"task 0", "task 1", "task 2"}


def test_what_was_answered_is_answered_still_when_tasks_are_added() -> None:
    memory = learned("selected", (0,))
    images = everything()
    before = memory.observe(images, "task 0").logits("task 0").numpy().tobytes()
    for task in (1, 2):
        memory.learn(f"task {task}", bars(task), QUICK)
        assert memory.observe(images, "task 0").logits("task 0").numpy().tobytes() == before


def test_a_query_for_one_task_answers_as_a_batch_of_many_does() -> None:
    memory = served(parts_of("selected", (0, 1, 2)))
    images = everything()
    asked = memory.predict(images, "task 1", top_k=2)
    assert {one.task for one in asked} == {"task 1"}
    assert {one.ran for one in asked} == {("task 1",)}
    observation = memory.observe(images)
    assert isinstance(observation, StagedObservation)
    assert observation.predictions("task 1", top_k=2) == asked
    rows = observation[3:9]
    assert rows.predictions(top_k=3) == observation.predictions(top_k=3)[3:9]


def test_learning_reads_only_what_it_needs() -> None:
    parts = parts_of("commons", (0, 1, 2))
    read: list[str] = []

    def piece(name: str, data: bytes) -> Piece:
        def content() -> bytes:
            read.append(name)
            return data

        return Piece(content_hash(data), content)

    engrams = [piece(f"engram {n}", bytes_of(data)) for n, data in enumerate(parts.engrams)]
    kept = [piece(f"kept {n}", bytes_of(data)) for n, data in enumerate(parts.kept)]
    definition_ = parts.definition.model_copy(update={"settings": {**parts.definition.settings, "negatives": 1}})
    memory = restore(definition_, engrams, parts.recogniser, kept, parts.budget)
    assert read == ["engram 0"]
    memory.learn("task 3", bars(3), QUICK)
    sums = [name for name in read if name.startswith("kept")]
    assert sorted(sums)[:2] == ["kept 0", "kept 1"]  # the totals, the first task's sums
    assert len(sums) == 3  # and one detector's
    assert len({name for name in read if name.startswith("engram")}) == 2  # the commons and one engram
    after = dump(memory)
    untouched = [piece for piece in after.kept if isinstance(piece, Piece)]
    assert len(untouched) >= len(parts.kept) - 2


def test_restored_models_learn_the_same_bytes_as_those_that_were_never_stored() -> None:
    parts = parts_of("selected", (0, 1))
    memory = restore(parts.definition, parts.engrams, parts.recogniser, parts.kept, parts.budget)
    memory.learn("task 2", bars(2), QUICK)
    found, expected = dump(memory), parts_of("selected", (0, 1, 2))
    assert found.recogniser == expected.recogniser
    assert list(map(bytes_of, found.engrams)) == list(map(bytes_of, expected.engrams))
    assert list(map(bytes_of, found.kept)) == list(map(bytes_of, expected.kept))


def single(task: int, label: int) -> Examples:
    both = bars(task)
    chosen = (both.labels == label).nonzero().flatten()
    return Examples(both.images[chosen], torch.zeros(len(chosen), dtype=torch.int64), (f"{task}-{label}",))


def test_tasks_of_one_class_have_no_network_and_are_told_apart() -> None:
    memory = Memory.create(defined("selected"))
    for task in range(2):
        for label in range(2):
            report = memory.learn(f"{task}-{label}", single(task, label), QUICK)
            assert report.units == {}
            assert report.accuracy["kept"] == 1.0
    images = torch.cat([single(task, label).images[:8] for task in range(2) for label in range(2)])
    found = [one.label for one in memory.predict(images)]
    expected = [f"{task}-{label}" for task in range(2) for label in range(2) for _ in range(8)]
    assert sum(a == b for a, b in zip(found, expected, strict=True)) >= 30
    assert {one.top[0].evidence for one in memory.predict(images)} == {"ridge"}
    again = served(dump(memory))
    assert again.predict(images, top_k=4) == memory.predict(images, top_k=4)
    assert again.predict(images[:2], "0-0")[0].probability == 1.0
    with pytest.raises(NoNetwork):
        again.explain(images[0])


def test_filters_are_learned_from_no_first_task_of_one_class() -> None:
    memory = Memory.create(defined("commons", commons={"features": 128, "kind": "learned"}))
    with pytest.raises(CommonsNeedsClasses):
        memory.learn("one", single(0, 0), QUICK)
    memory.learn("two", bars(1), QUICK)
    memory.learn("one", single(0, 0), QUICK)
    assert memory.predict(single(0, 0).images[:1])[0].label in ("0-0", *bars(1).classes)


def test_methods_that_need_two_classes_say_so() -> None:
    memory = Memory.create(definition("mlp", 1, method="rnf", recipe=3))
    with pytest.raises(TooFewClasses):
        memory.learn("one", single(0, 0), QUICK)


def test_one_name_in_two_tasks_is_one_label() -> None:
    first = bars(0)
    second = bars(1)
    memory = Memory.create(defined("selected"))
    memory.learn("a", Examples(first.images, first.labels, ("left", "right")), QUICK)
    memory.learn("b", Examples(second.images, second.labels, ("left", "other")), QUICK)
    answers = memory.predict(everything(), top_k=3, contenders="all")
    for one in answers:
        assert {c.label for c in one.top} == {"left", "right", "other"}
        for candidate in one.top:
            assert set(candidate.tasks) == ({"a", "b"} if candidate.label == "left" else {candidate.task})
    apart = {**memory.definition.settings, "labels": "apart"}
    parts = dump(memory)
    other = served(Parts(parts.definition.model_copy(update={"settings": apart}), *_rest(parts)))
    for one in other.predict(everything(), top_k=4):
        assert sorted(c.label for c in one.top) == ["left", "left", "other", "right"]
        assert all(c.tasks == () for c in one.top)


def _rest(parts: Parts) -> tuple[tuple[bytes | Piece, ...], bytes, tuple[bytes | Piece, ...], dict[str, int]]:
    return parts.engrams, parts.recogniser, parts.kept, parts.budget
