"""Tests of SHARC beyond the laws of every method."""

from __future__ import annotations

import pytest
import torch

from engram import LearnOptions, Memory
from engram.certificate import certify, compare
from engram.checkpointing.pieces import bytes_of
from engram.errors import CapacityExhausted, InvalidDefinition
from engram.memory import dump
from engram.methods.sharc.feature_maps import Classifier, FeatureMaps, joined, whole
from engram.methods.sharc.method import Sharc
from engram.methods.sharc.replay import NewMaps, RecalledMaps, train
from engram.nn.backbones import layout_of
from engram.nn.network import pixels
from engram.training.trainer import TrainingPhase
from testing.data.patterns import bars, context, definition

LONGER = LearnOptions(epochs=6, augment="none", batch_size=16, learning_rate=1e-2)


def _grown(tasks: int = 3, **settings: object) -> Memory:
    memory = Memory.create(definition("cnn", method="sharc", retention="features", settings=settings))
    for task in range(tasks):
        memory.learn(f"task {task}", bars(task), LONGER)
    return memory


def _accuracy(memory: Memory, task: str | None, tasks: int = 3) -> float:
    right: list[bool] = []
    for number in range(tasks):
        fresh = bars(number, count=30)
        answers = memory.predict(fresh.images, task and f"task {number}")
        right += [a.label == fresh.classes[label] for a, label in zip(answers, fresh.labels.tolist(), strict=True)]
    return sum(right) / len(right)


@pytest.fixture(scope="module")
def memory() -> Memory:
    return _grown(recognise="head")


def _sharc(memory: Memory) -> Sharc:
    assert isinstance(memory.method, Sharc), "the method was named"
    return memory.method


def test_a_model_that_may_keep_nothing_is_refused_with_the_reason() -> None:
    with pytest.raises(InvalidDefinition, match=r"sharc has no retention 'none': .* retention 'features'"):
        Memory.create(definition(method="sharc"))
    with pytest.raises(InvalidDefinition, match="1024 bytes has no room"):
        Memory.create(definition("cnn", method="sharc", retention="features", settings={"memory_bytes": 1024}))


def test_settings_that_leave_the_memory_without_use_are_refused() -> None:
    with pytest.raises(ValueError, match="nothing to replay for"):
        definition(method="sharc", retention="features", settings={"heads": "own"})


def test_replay_remembers_what_training_on_new_tasks_alone_forgets(memory: Memory) -> None:
    assert _accuracy(memory, None) > 0.9
    method = _sharc(memory)
    maps, replay_memory = method.maps, method.replay_memory
    assert maps is not None
    assert replay_memory is not None
    new, whole_memory = bars(4), replay_memory.recalled()
    fresh = NewMaps(lambda chosen: maps(pixels(new.images[chosen])), new.labels + 6)
    share = {}
    for replayed in (True, False):
        assert method.shared is not None
        wider = method.shared.widened(new.classes)
        recalled = whole_memory if replayed else RecalledMaps(whole_memory.maps[:0], whole_memory.labels[:0])
        run = TrainingPhase("training", (0.0, 1.0), 30, 1e-2, 1)
        train(wider, fresh, recalled, run, torch.Generator().manual_seed(0), context(LONGER))
        old = torch.cat(
            [wider(maps(pixels(bars(task).images))).argmax(1) == bars(task).labels + 2 * task for task in range(3)]
        )
        share[replayed] = float(old.float().mean())
        assert float((wider(maps(pixels(new.images))).argmax(1) == new.labels + 6).float().mean()) > 0.6
    assert share[True] > 0.9
    assert share[False] < share[True] - 0.2


def test_the_backbone_is_frozen_and_stored_once(memory: Memory) -> None:
    first = dump(_grown(1, recognise="head")).engrams
    last = dump(memory).engrams
    assert first[:2] == last[:2]
    assert first[2] != last[2]


def test_maps_do_not_depend_on_later_tasks_and_are_what_the_layout_says(memory: Memory) -> None:
    maps = _sharc(memory).maps
    assert maps is not None
    found = maps(pixels(bars(0).images[:5]))
    assert found.shape == (5, *maps.shape)
    assert bool((found >= 0).all())
    assert torch.equal(FeatureMaps.load(maps.layout, maps.dump())(pixels(bars(0).images[:5])), found)


@pytest.mark.parametrize("backbone", ["mlp", "cnn", "resnet18", "resnet50"])
def test_backbone_and_classifier_together_are_the_layout_s_own_network(backbone: str) -> None:
    layout = layout_of(definition(backbone))
    torch.manual_seed(0)
    engram = whole(layout, "task", ("a", "b")).eval()
    maps, classifier = FeatureMaps.of(engram), Classifier(layout, ("a", "b")).eval()
    classifier.start_from(engram)
    images = pixels(bars(0).images[:4])
    with torch.no_grad():
        expected = engram.logits(engram(images, {}))
        torch.testing.assert_close(classifier(maps(images)), expected)
        again = joined(maps, classifier.widened(("c",)), "task", 0, ("a", "b"))
        torch.testing.assert_close(again.logits(again(images, {})), expected)
    assert maps.summary(maps(images)).shape[0] == 4


def test_own_heads_are_exact_and_the_task_is_found_by_the_shared_one() -> None:
    memory = _grown(2, heads="own", recognise="head")
    assert memory.exact
    before = certify(memory)
    memory.learn("task 2", bars(2), LONGER)
    assert compare(before, certify(memory)) == []
    assert _accuracy(memory, "given") > 0.9
    assert _accuracy(memory, None) > 0.8


def test_the_shared_head_answers_with_one_softmax_over_all_classes(memory: Memory) -> None:
    seen = memory.observe(bars(1).images[:8])
    logits = torch.cat(seen.heads, 1) / seen.temperatures[0]
    expected = logits.softmax(1).max(1)
    for answer, probability in zip(seen.predictions(), expected.values.tolist(), strict=True):
        assert answer.probability == pytest.approx(probability, rel=1e-4)


def test_the_report_counts_real_bytes_and_says_what_hopfield_costs() -> None:
    few = {"recognise": "head", "quantile": 0.8, "rank": 2}
    masked, hopfield = _grown(1, **few), _grown(1, **few, recall="hopfield")
    for memory, saves in ((masked, True), (hopfield, False)):
        report = memory.learn("more", bars(1), LONGER)
        told = report.details["memory"]
        assert isinstance(told, dict)
        assert ("holds whole patterns" in told.get("note", "")) != saves
        replay_memory = _sharc(memory).replay_memory
        assert replay_memory is not None
        assert told["bytes"]["all"] == replay_memory.nbytes
        stored = sum(len(bytes_of(piece)) for piece in dump(memory).kept)
        assert replay_memory.nbytes <= stored <= replay_memory.nbytes + 1500, "nothing is kept that is not counted"
        assert told["bytes"]["maps"] < told["bytes_of_whole_maps"]
        assert (told["bytes"]["all"] < told["bytes_of_whole_maps"]) == saves


def test_a_full_memory_forgets_maps_and_one_that_is_too_small_refuses_and_changes_nothing() -> None:
    memory = _grown(1, recognise="head", memory_bytes=4000, rank=4)
    counts = []
    for task in (1, 2):
        memory.learn(f"task {task}", bars(task), LONGER)
        replay_memory = _sharc(memory).replay_memory
        assert replay_memory is not None
        assert replay_memory.nbytes <= 4000
        counts.append(torch.bincount(replay_memory.masked_maps.labels.long()).tolist())
    assert len(set(counts[0])) == len(set(counts[1])) == 1, "every class has as many"
    assert counts[1][0] < counts[0][0]
    before = dump(memory)
    with pytest.raises(CapacityExhausted, match="4000 bytes"):
        memory.learn("task 3", bars(3, count=8, classes=40), LONGER)
    assert dump(memory) == before
