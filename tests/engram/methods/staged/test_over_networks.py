"""Laws of models over networks that users bring, the same as of all others."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, cast

import pytest
import torch

from engram import Definition, InputShape, Memory
from engram.certificate import Certificate, certify, compare
from engram.checkpointing.pieces import bytes_of
from engram.errors import InputError, InvalidDefinition
from engram.memory import dump
from engram.methods.eidetic.staged.removal import without
from engram.nn.commons import recipes
from engram.nn.commons.joined_commons import JoinedCommons
from engram.nn.commons.pretrained_commons import STEP
from engram.nn.pretrained.backbone import Backbone
from engram.recognition.staged.exact_sums import ExactSums
from engram.recognition.staged.totals import Totals
from engram.runtime import environment
from testing.data.checkpoints import InMemory, Killed, dying
from testing.data.patterns import QUICK
from tests.engram.methods.staged import answering
from tests.engram.methods.staged.over_networks import (
    ADOPTED,
    CHOSEN,
    CONVOLUTIONS,
    NET,
    OWN,
    SIDE,
    VARIANTS,
    again,
    brought,
    by_shape,
    created,
    everything,
    grown,
    lessons,
    model,
    pictures,
    untaught,
)
from tests.engram.nn.pretrained.drawn import of_module

SLOWLY = [name if name in CHOSEN else pytest.param(name, marks=pytest.mark.slow) for name in VARIANTS]


@pytest.mark.parametrize("name", SLOWLY)
def test_what_was_answered_is_answered_still_when_tasks_are_added(name: str) -> None:
    found = grown(name)
    memory = again(found.parts)
    for task, answers in found.answers.items():
        assert by_shape(memory, task) == answers


@pytest.mark.parametrize("name", SLOWLY)
def test_an_images_logits_are_the_same_bytes_in_any_row_beside_any_neighbours(name: str) -> None:
    memory, images = again(grown(name).parts), everything()
    generator = torch.Generator().manual_seed(5)
    for task in grown(name).tasks:
        for shape in (1, 4, 16):
            alone: dict[int, bytes] = {}
            for _ in range(2):
                order = torch.randperm(len(images), generator=generator)[:shape]
                logits = model(memory).logits_in_shape(task, images[order], shape)
                for row, number in enumerate(order.tolist()):
                    now = logits[row].numpy().tobytes()
                    assert alone.setdefault(number, now) == now


@pytest.mark.parametrize("contenders", [1, 2, "all"])
@pytest.mark.parametrize("name", SLOWLY)
def test_probabilities_are_complete_and_sum_to_one(name: str, contenders: int | Literal["all"]) -> None:
    memory = again(grown(name).parts)
    labels = {label for info in memory.tasks for label in info.classes}
    for one in memory.predict(everything(1), top_k=len(labels), contenders=contenders):
        assert {candidate.label for candidate in one.top} == labels
        assert sum(candidate.probability for candidate in one.top) == pytest.approx(1, abs=1e-5)
        if contenders == "all":
            assert set(one.ran) == {info.name for info in memory.tasks}


@pytest.mark.parametrize("names", [CHOSEN, pytest.param(tuple(VARIANTS), marks=pytest.mark.slow)], ids=len)
def test_a_new_process_answers_with_the_same_bytes(tmp_path: Path, names: tuple[str, ...]) -> None:
    expected = {}
    for name in names:
        memory = again(grown(name).parts)
        memory.save(tmp_path / name)
        expected[name] = answering.digests(memory)
    command = [sys.executable, "-m", answering.__name__, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert json.loads(done.stdout) == expected


@pytest.mark.parametrize("name", SLOWLY)
def test_every_task_has_heatmaps_of_its_logits(name: str) -> None:
    memory, image = again(grown(name).parts), everything()[0]
    for info in memory.tasks:
        logits = memory.observe(image[None], info.name).logits(info.name)[0]
        found = memory.explain(image, task=info.name, target=info.classes[1])
        assert (found.task, found.label) == (info.name, info.classes[1])
        assert found.relevance.shape == image.shape
        assert bool(torch.isfinite(found.relevance).all())
        assert found.logit == pytest.approx(float(logits[1]), abs=0.05)  # what is read of commons is rounded
    assert memory.explain(image).task in {info.name for info in memory.tasks}


@pytest.mark.parametrize(
    "name",
    ["several", pytest.param("adopted after a bank", marks=pytest.mark.slow), "adopted with a sample"],
)
def test_a_model_less_a_task_is_one_that_never_learned_it(name: str) -> None:
    later, earlier = again(grown(name).parts), again(grown(name).stages[-2])
    for memory in (later, earlier):
        memory.learn("task 2", pictures(2), QUICK)
    whole, never = model(later), dump(earlier)
    recogniser, tasks, sums = without("task 1", whole.commons, whole.recogniser, whole.staged, whole.required_sums())
    assert recogniser.dump() == never.recogniser
    assert tuple(map(bytes_of, sums.pieces)) == tuple(map(bytes_of, never.kept))
    stored = [bytes_of(piece) for task in tasks for piece in task.stored]
    assert stored == [bytes_of(piece) for piece in never.engrams[2:]]


def test_a_stored_model_that_says_nothing_of_unknown_images_goes_on_as_it_was_made() -> None:
    there = grown("none").stages[0]
    stored = {name: value for name, value in there.definition.stored().items() if name != "novelty"}
    later, earlier = again(grown("none").parts), again(replace(there, definition=Definition.load(stored)))
    for task, examples in lessons("none").items():
        earlier.learn(task, examples, QUICK)
    assert [one.profile.relative for one in model(earlier).staged] == [None, None]
    assert all(one.profile.combined is not None for one in model(earlier).staged)
    assert model(earlier).recogniser.space.relative is None
    assert [one.profile.combined for one in model(later).staged] == [None, None]
    assert all(one.profile.relative is not None for one in model(later).staged)
    for task, answers in grown("none").answers.items():
        assert by_shape(earlier, task) == answers, "what is known changes, not what is answered"
    assert dump(again(dump(earlier))) == dump(earlier)
    assert not any(b'\\"format\\":3' in part for part in map(bytes_of, dump(earlier).engrams))


def test_a_networks_own_outputs_tell_unknown_images_since_novelty_3() -> None:
    name = "adopted after a bank"  # whose features come first
    there = grown(name).stages[0]
    earlier = again(replace(there, definition=there.definition.model_copy(update={"novelty": 2})))
    later = again(grown(name).parts)
    for task, examples in lessons(name).items():
        earlier.learn(task, examples, QUICK)
    outputs = model(later).commons.outputs()
    assert outputs is not None
    relative, before = (model(memory).recogniser.space.relative for memory in (later, earlier))
    assert relative is not None
    assert before is not None
    assert relative.outputs is not None
    assert before.outputs is None
    features = model(later).commons.look(everything()).features
    told = model(later).serving().stage_one.deviating(features)
    assert told is not None
    assert told.equal(relative.outputs.unusual(outputs(features)))
    network = cast(Any, model(later).commons.look(everything()).logits)  # which are those, but for their constants
    assert float((outputs(features) - network).std(0).max()) < 0.1 * float(network.std(0).mean())
    for task, answers in grown(name).answers.items():
        assert by_shape(earlier, task) == answers, "what is known changes, not what is answered"
    assert [unpacked_format(dump(memory).recogniser) for memory in (later, earlier)] == [4, 3]
    assert dump(again(dump(earlier))) == dump(earlier)


def test_a_network_without_a_classifier_tells_unknown_images_by_distances_alone() -> None:
    arguments = {"num_classes": 0}
    found = of_module(CONVOLUTIONS, untaught(CONVOLUTIONS, arguments, SIDE), arguments, size=SIDE)
    shape = InputShape(channels=3, height=SIDE, width=SIDE)
    definition = Definition.model_validate({"backbone": "none", "commons": NET, "input": shape})
    memory = Memory.create(definition, {"net": Backbone(found.description, lambda: found.file)})
    memory.learn("task 0", pictures(0), QUICK)
    relative = model(memory).recogniser.space.relative
    assert memory.definition.novelty == 3
    assert model(memory).commons.outputs() is None
    assert relative is not None
    assert relative.outputs is None
    assert unpacked_format(dump(memory).recogniser) == 3
    assert again(dump(memory)).predict(everything(1)) == memory.predict(everything(1))


def unpacked_format(data: bytes) -> int:
    """The format that a file says."""
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return int(json.loads(header["__metadata__"]["engram"])["format"])


@pytest.mark.parametrize("name", ["several", "adopted with a sample"])
def test_learning_that_is_broken_off_ends_with_the_same_bytes(name: str) -> None:
    """The first task, whose images are not the only ones that are looked at."""
    stages = grown(name).stages
    task, examples = next(iter(lessons(name).items()))
    checkpoints = InMemory(every=1)
    for after in (60, 134):  # while features are scaled, and after that
        with pytest.raises(Killed):
            again(stages[0]).learn(task, examples, QUICK, checkpoints=checkpoints, cancel=dying(after))
    memory = again(stages[0])
    report = memory.learn(task, examples, QUICK, checkpoints=checkpoints)
    assert report.resumed == 1
    assert dump(memory) == stages[1]


@pytest.mark.parametrize("name", ["none", "adopted", "adopted with a sample"])
def test_tasks_of_one_class_stand_beside_the_others(name: str) -> None:
    memory = again(grown(name).parts)
    examples = pictures(2, 16, 1)
    report = memory.learn("one", examples, QUICK)
    assert report.units == {}
    for task, answers in grown(name).answers.items():
        assert by_shape(memory, task) == answers
    (answer,) = memory.predict(examples.images[:1], "one")
    assert (answer.label, answer.probability) == (examples.classes[0], 1.0)
    labels = [one.label for one in memory.predict(examples.images)]
    if not VARIANTS[name].adopted or VARIANTS[name].sample:
        assert labels.count(examples.classes[0]) >= 12


@pytest.mark.parametrize("name", ["several", "adopted"])
def test_a_wider_budget_touches_nothing(name: str) -> None:
    memory = again(grown(name).parts)
    before = dump(memory)
    memory.raise_budget(32.0)
    after = dump(memory)
    assert (after.engrams, after.recogniser, after.kept) == (before.engrams, before.recogniser, before.kept)
    for task, answers in grown(name).answers.items():
        assert by_shape(memory, task) == answers
    assert all(layer.units > before.budget[layer.layer] for layer in memory.capacity())


@pytest.mark.parametrize(
    "name", [name if name in CHOSEN else pytest.param(name, marks=pytest.mark.slow) for name in ADOPTED]
)
def test_an_adopted_task_answers_what_the_network_answers(name: str) -> None:
    found, variant, images = grown(name), VARIANTS[name], everything()
    plain = torch.cat([brought(variant.network).plain_logits(image[None]) for image in images])
    assert set(found.answers[OWN].values()) == {plain.numpy().tobytes()}
    memory = again(found.parts)
    asked = memory.predict(images, OWN, top_k=3)
    assert [one.label for one in asked] == [memory.tasks[0].classes[best] for best in plain.argmax(1).tolist()]
    assert {one.ran for one in asked} == {(OWN,)}
    assert {one.calibrated for one in asked} == {variant.sample}
    if not variant.sample:
        assert {one.known for one in asked} == {None}
        for one in memory.predict(images):
            assert OWN in one.ran
            assert not one.calibrated
            assert one.task != OWN or one.known is None
            assert 0 <= one.novelty <= 1


def test_an_adopted_network_alone_answers_and_learns_a_sample_of_its_classes_only_first() -> None:
    memory = created("adopted")
    images = everything()
    answers = memory.predict(images, top_k=3, contenders="all")
    assert memory.predict(images[:0]) == []
    for one in answers:
        assert (one.task, one.known, one.calibrated) == (OWN, None, False)
        assert sum(candidate.probability for candidate in one.top) == pytest.approx(1, abs=1e-5)
    assert memory.explain(images[0]).task == OWN
    assert by_shape(Memory(memory.method), OWN) == grown("adopted").answers[OWN]


def test_networks_together_have_the_sums_of_one_regression_over_all_their_features() -> None:
    method = model(again(grown("together").parts))
    bank, *networks = cast(JoinedCommons, method.commons).each()
    widths = (bank.features, sum(network.features for network in networks))
    assert method.sums is not None
    (_, totals), tasks = method.sums.totals(method.commons).each, [pictures(task) for task in range(2)]
    assert method.commons.widths == widths
    assert networks[0].features != widths[1]
    expected = torch.zeros(widths[1] + 1, widths[1] + 1, dtype=torch.int64)
    steps = [torch.cat([network.of_bytes(one.images) for network in networks], 1) / STEP for one in tasks]
    for one, given in zip(tasks, steps, strict=True):
        sums = ExactSums.empty(widths[1], 2, STEP).plus(given * STEP, one.labels)
        expected += Totals.empty(widths[1], STEP).plus("", sums).second
    assert torch.equal(totals.second, expected)
    outputs, look = method.commons.outputs(), method.commons.look(everything())
    assert outputs is not None
    assert (outputs.part, outputs.first) == (1, bank.features)
    assert look.logits is not None
    turned = outputs(look.features) - look.logits  # but for constants of each output, and rounding
    assert turned.std(0).max() < 0.05 * look.logits.std(0).max()


def test_a_certificate_names_what_networks_are_built_with(monkeypatch: pytest.MonkeyPatch) -> None:
    memory, source = again(grown("adopted").parts), brought(VARIANTS["adopted"].network).description
    certified = certify(memory)
    row = {
        "architecture": source.architecture,
        "library": f"timm {version('timm')}",
        "weights": source.weights,
        "precision": "float32",
    }
    assert certified.environment == {**environment(memory.device), "networks": [row]}
    stored = certified.to_dict()
    assert Certificate.from_dict(json.loads(json.dumps(stored))) == certified
    monkeypatch.setattr("timm.__version__", "999.0")
    later = certify(again(grown("adopted").parts))
    assert compare(certified, later) == []
    assert later.environment != certified.environment


def test_what_another_version_of_a_library_began_is_not_gone_on_from(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    parts, checkpoints = grown("several").stages[1], InMemory(every=1)
    with pytest.raises(Killed):
        again(parts).learn("task 1", pictures(1), QUICK, checkpoints=checkpoints, cancel=dying(20))
    monkeypatch.setattr("timm.__version__", "999.0")
    report = again(parts).learn("task 1", pictures(1), QUICK, checkpoints=checkpoints)
    assert report.resumed == 0
    assert "a checkpoint is ignored" in caplog.text


@pytest.mark.parametrize("classes", [("a", "b"), ("a", "b", "b"), ("a", "b", ""), "abc", (1, 2, 3)])
def test_a_network_is_adopted_with_a_name_for_each_output(classes: Any) -> None:
    memory = created("none")
    with pytest.raises(InvalidDefinition, match="3 outputs"):
        memory.adopt(OWN, classes)
    with pytest.raises(InputError, match="name of a task"):
        memory.adopt(cast(str, 3), ("a", "b", "c"))
    assert memory.tasks == ()
    with pytest.raises(InvalidDefinition, match="tasks already"):
        again(grown("none").parts).adopt(OWN, ("a", "b", "c"))


def test_a_head_that_is_to_read_nothing_is_refused_when_it_is_made_alone() -> None:
    there = grown("none").parts
    fields = {**dict(there.definition), "settings": {**there.definition.settings, "read_commons": False}}
    definition, network = Definition.model_validate(fields), brought(CONVOLUTIONS)
    with pytest.raises(InvalidDefinition, match="read_commons"):
        Memory.create(definition, {"net": Backbone(network.description, lambda: network.file)})
    # Earlier releases made such models, which read the commons all the same.
    assert by_shape(again(replace(there, definition=definition)), "task 1") == grown("none").answers["task 1"]


def test_networks_together_have_no_more_features_than_one_regression_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipes, "MOST_TOGETHER", 255)  # a classifier that reads 256 has them however few are asked for
    with pytest.raises(InvalidDefinition, match="at most 255"):
        created("together")
    assert created("several").tasks == ()
