"""Laws of every method, run over all that are registered."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import cast

import pytest
import torch
from torch import Tensor

from engram import Definition, Examples, Memory
from engram.certificate import certify, compare, digest, probe_batch
from engram.checkpointing.progress import Progress
from engram.config.engines import EngineName
from engram.config.methods import SETTINGS
from engram.errors import Cancelled, InvalidDefinition, LearningFailed, NothingLearned, SnapshotError, TaskExists
from engram.memory import dump, restore
from engram.methods import method_of
from engram.nn.runtimes import RUNTIMES
from engram.snapshot import Parts
from testing.data.patterns import QUICK, bars, definition

METHODS = tuple(SETTINGS)
BACKBONES = ("mlp", "cnn")

SMALL: dict[str, dict[str, object]] = {
    "rerelrp": {"trees": 8, "exemplars": 24},
}
"""Settings with which a method is quick enough to be tested here."""

VARIANTS: dict[str, dict[str, object]] = {
    "eidetic, reads all": {"method": "eidetic", "settings": {"reads": "all"}},
    "eidetic, commons": {"method": "eidetic", "settings": {"reads": "commons"}},
    "eidetic, recipe 2": {"method": "eidetic", "recipe": 2},
    "rnf as published": {"method": "rnf", "settings": {"preset": "paper"}},
    "rnf, soft": {"method": "rnf", "settings": {"elasticity": 0.2}},
    "rmn as published": {"method": "rmn", "settings": {"preset": "paper"}},
    "rerelrp as published": {"method": "rerelrp", "settings": {"preset": "paper", "trees": 8, "exemplars": 24}},
    "sharc, own heads": {"method": "sharc", "settings": {"heads": "own", "recognise": "head", "recall": "hopfield"}},
    "eidetic, onnxruntime-2": {"method": "eidetic", "engine": "onnxruntime-2"},
    "eidetic, openvino-1": {"method": "eidetic", "engine": "openvino-1"},
}
"""Settings that make a method another one, for laws about what it promises."""

EACH = (*METHODS, "eidetic, reads all")
"""One of every class of methods."""


def _installed(name: str) -> bool:
    runtime = RUNTIMES.get(cast(EngineName, VARIANTS.get(name, {}).get("engine")))
    return runtime is None or all(map(find_spec, runtime.packages))


ALL = (*METHODS, *(name for name in VARIANTS if _installed(name)))

SLOWLY = [name if name in EACH else pytest.param(name, marks=pytest.mark.slow) for name in ALL]
"""All, of which the ordinary run has one of every class."""


def defined(name: str, backbone: str = "mlp", seed: int = 0) -> Definition:
    """A small model of a method or variant, on a backbone and with a retention that it has."""
    fields = VARIANTS.get(name, {"method": name, "settings": SMALL.get(name, {})})
    kind = method_of(definition("cnn" if "engine" in fields else "mlp", 1, **fields))
    has = kind.backbones if "engine" not in fields else ("cnn",)  # which are for convolutions
    chosen = backbone if backbone in has else min(has)
    retention = "none" if "none" in kind.retentions else min(kind.retentions)
    return definition(chosen, 1, budget=3.0, seed=seed, retention=retention, **fields)


def grown(name: str, backbone: str = "mlp", tasks: int = 2, seed: int = 0) -> Memory:
    memory = Memory.create(defined(name, backbone, seed))
    for task in range(tasks):
        memory.learn(f"task {task}", bars(task), QUICK)
    return memory


@cache
def parts_of(name: str, backbone: str = "mlp") -> Parts:
    """A model of two tasks, learned once for all laws."""
    return dump(grown(name, backbone))


def again(parts: Parts, *, learns: bool = True) -> Memory:
    kept = parts.kept if learns else None
    return restore(parts.definition, parts.engrams, parts.recogniser, kept, parts.budget)


def probes(memory: Memory) -> Tensor:
    return probe_batch(memory.definition.input)


def answers_of(memory: Memory) -> dict[str, str]:
    """Digests of all that is answered without learning."""
    seen = memory.observe(probes(memory))
    return {
        **{info.name: digest(seen.logits(info.name)) for info in memory.tasks},
        "tasks": digest(seen.log_tasks),
        "p values": digest(seen.p_values),
        "temperatures": digest(seen.temperatures),
    }


@pytest.mark.parametrize("name", EACH)
def test_the_same_seeds_give_the_same_bytes(name: str) -> None:
    torch.rand(7)  # whoever else draws random numbers changes nothing
    assert dump(grown(name)) == parts_of(name)
    assert dump(grown(name, tasks=1, seed=1)).engrams != dump(grown(name, tasks=1)).engrams


@pytest.mark.parametrize("name", EACH)
def test_what_is_handed_in_is_left_as_it_was(name: str) -> None:
    memory, examples = again(parts_of(name)), bars(2)
    before = hashlib.sha256(examples.images.numpy().tobytes() + examples.labels.numpy().tobytes()).digest()
    memory.learn("task 2", examples, QUICK)
    assert hashlib.sha256(examples.images.numpy().tobytes() + examples.labels.numpy().tobytes()).digest() == before


@pytest.mark.parametrize("name", EACH)
def test_only_learning_changes_a_model(name: str) -> None:
    parts = parts_of(name)
    memory = again(parts)
    memory.predict(probes(memory), top_k=3)
    memory.explain(probes(memory)[0])
    memory.capacity()
    certify(memory)
    assert dump(memory) == parts


@pytest.mark.parametrize("name", EACH)
def test_a_report_says_which_tasks_its_images_are_given_to(name: str) -> None:
    memory, examples = again(parts_of(name)), bars(2)
    strange = Examples(bars(0).images[:20], bars(0).labels[:20], examples.classes)  # held out, and of another task
    report = memory.learn("task 2", replace(examples, held_out=strange), QUICK)
    assert sum(report.given_to.values()) == 20
    assert report.given_to.get("task 2", 0) / 20 == pytest.approx(report.recognised)
    assert max(report.given_to, key=lambda task: report.given_to[task]) == next(iter(report.given_to)) == "task 0"
    assert report.to_dict()["given_to"] == report.given_to


_READER = """
import json, sys
import torch
from engram import Memory
from tests.engram.methods.test_methods import answers_of
torch.set_num_threads(int(sys.argv[1]))
for folder in sys.stdin:
    print(json.dumps(answers_of(Memory.load(folder.strip()))), flush=True)
"""


@pytest.fixture(scope="module")
def reader() -> Iterator[subprocess.Popen[str]]:
    """A process that has never learned: it reads folders of saved models and prints the digests of their answers."""
    command = [sys.executable, "-c", _READER, str(torch.get_num_threads())]
    root = Path(__file__).parents[3]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root) as process:
        yield process


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("name", EACH)
def test_a_new_process_answers_with_the_same_bytes(
    name: str, backbone: str, reader: subprocess.Popen[str], tmp_path: Path
) -> None:
    memory = again(parts_of(name, backbone))
    memory.save(tmp_path)
    assert reader.stdin is not None
    assert reader.stdout is not None
    print(tmp_path, file=reader.stdin, flush=True)
    assert json.loads(reader.stdout.readline()) == answers_of(memory)


@pytest.mark.parametrize("name", EACH)
def test_answering_needs_nothing_of_what_only_learning_needs(name: str) -> None:
    parts = parts_of(name)
    assert answers_of(again(parts, learns=False)) == answers_of(again(parts))


@pytest.mark.parametrize("name", EACH)
def test_a_saved_model_goes_on_learning_as_if_it_had_never_been_saved(name: str) -> None:
    memory = grown(name, tasks=1)
    saved = again(dump(memory))
    for model in (memory, saved):
        model.learn("task 1", bars(1), QUICK)
    assert dump(saved) == dump(memory)


class Stop:
    """Wants learning to stop as soon as a phase is reached."""

    def __init__(self, phase: str) -> None:
        self.phase = phase
        self.reached = ""

    def note(self, progress: Progress) -> None:
        self.reached = progress.phase

    def wanted(self) -> bool:
        return self.reached == self.phase


@pytest.mark.parametrize("name", EACH)
def test_a_cancelled_task_leaves_the_model_as_it_was_whatever_the_phase(name: str) -> None:
    parts = parts_of(name)
    told: list[Progress] = []
    again(parts).learn("task 2", bars(2), QUICK, progress=told.append)
    fractions = [progress.fraction for progress in told]
    assert fractions == sorted(fractions)
    assert fractions[-1] == pytest.approx(1.0)
    for phase in dict.fromkeys(progress.phase for progress in told):
        memory, stop = again(parts), Stop(phase)
        with pytest.raises(Cancelled):
            memory.learn("task 2", bars(2), QUICK, progress=stop.note, cancel=stop.wanted)
        assert stop.reached == phase
        assert dump(memory) == parts


@pytest.mark.parametrize("name", EACH)
def test_a_task_that_cannot_be_learned_well_enough_leaves_the_model_as_it_was(name: str) -> None:
    memory = again(parts_of(name))
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (96, 1, 12, 12), generator=generator, dtype=torch.uint8)
    hopeless = Examples(noise, torch.arange(96) % 2, ("heads", "tails"))
    with pytest.raises(LearningFailed):
        memory.learn("luck", hopeless, QUICK.model_copy(update={"min_accuracy": 1.0}))
    assert dump(memory) == parts_of(name)


@pytest.mark.parametrize("name", METHODS)
def test_what_a_method_cannot_do_is_refused_by_name(name: str) -> None:
    for field in ("backbone", "retention"):
        impossible = defined(name).model_copy(update={field: "nonsense"})
        with pytest.raises(InvalidDefinition, match=f"{name}.* {field} 'nonsense'"):
            Memory.create(impossible)
    with pytest.raises(NothingLearned):
        Memory.create(defined(name)).predict(bars(0).images)
    with pytest.raises(TaskExists):
        again(parts_of(name)).learn("task 0", bars(2), QUICK)


@pytest.mark.parametrize("name", EACH)
def test_a_budget_is_raised_or_refused_by_name_and_no_answer_changes(name: str) -> None:
    memory = again(parts_of(name))
    before, answers = {layer.layer: layer.units for layer in memory.capacity()}, answers_of(memory)
    wider = {layer: units + 5 for layer, units in before.items()}
    refusal = ""
    try:
        memory.raise_budget(wider)
    except InvalidDefinition as error:
        refusal = str(error)
    assert {layer.layer: layer.units for layer in memory.capacity()} == (before if refusal else wider)
    assert name in refusal or not refusal
    assert answers_of(memory) == answers


@pytest.mark.parametrize("name", EACH)
def test_the_largest_budget_is_held_or_refused_and_no_answer_changes(name: str) -> None:
    memory = again(parts_of(name))
    before, answers = dict(memory.budget), answers_of(memory)
    largest = dict.fromkeys(before, 2**20)
    try:
        memory.raise_budget(largest)
    except InvalidDefinition:
        assert memory.budget == before
    else:
        assert memory.budget == largest
    assert answers_of(memory) == answers


@pytest.mark.parametrize("name", EACH)
def test_capacity_adds_up(name: str) -> None:
    memory = again(parts_of(name))
    layers = memory.capacity()
    assert layers
    for layer in layers:
        assert set(layer.owned) <= {info.name for info in memory.tasks}
        assert all(units >= 0 for units in layer.owned.values())
        assert sum(layer.owned.values()) + layer.free == layer.units
        assert layer.free >= 0
        assert memory.budget[layer.layer] == layer.units


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("name", EACH)
def test_a_heatmap_explains_the_logit_that_is_answered(name: str, backbone: str) -> None:
    memory = again(parts_of(name, backbone))
    image = bars(1).images[0]
    seen = memory.observe(image[None])
    for info in memory.tasks:
        for position, label in enumerate(info.classes):
            heatmap = memory.explain(image, task=info.name, target=label)
            assert (heatmap.task, heatmap.label) == (info.name, label)
            assert heatmap.relevance.shape == image.shape
            assert heatmap.relevance.isfinite().all()
            assert heatmap.relevance.any()
            assert heatmap.logit == pytest.approx(float(seen.logits(info.name)[0, position]), rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("name", EACH)
def test_observations_and_answers_are_whole(name: str) -> None:
    memory = again(parts_of(name))
    images = torch.cat([bars(task).images[:6] for task in range(2)])
    seen = memory.observe(images)
    assert [info.name for info in seen.tasks] == ["task 0", "task 1"]
    heads = [seen.logits(info.name) for info in seen.tasks]
    assert [tuple(head.shape) for head in heads] == [(12, 2), (12, 2)]
    assert all(head.dtype == torch.float32 for head in heads)
    torch.testing.assert_close(seen.log_tasks.exp().sum(1), torch.ones(12))
    asked = ~seen.p_values.isnan()
    assert bool(asked.all() if not memory.method.shapes else asked.any(1).all())
    assert bool(((seen.p_values >= 0) & (seen.p_values <= 1))[asked].all())
    assert bool((seen.temperatures > 0).all())
    assert seen.passes >= 1
    for answer in seen.predictions(top_k=4):
        assert answer.passes == seen.passes
        assert sum(candidate.probability for candidate in answer.top) == pytest.approx(1.0, abs=1e-4)
    for answer in memory.predict(images, task="task 1"):
        assert answer.task == "task 1"
        assert answer.label in bars(1).classes


@pytest.mark.parametrize("name", ALL)
def test_images_of_another_kind_are_not_known(name: str) -> None:
    memory = again(parts_of(name))
    noise = torch.randint(0, 256, (32, 1, 12, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(9))
    typical = [bool(a.known) for n in range(2) for a in memory.predict(bars(n, 20).images, task=f"task {n}")]
    assert sum(typical) / len(typical) > 0.8
    assert sum(bool(answer.known) for answer in memory.predict(noise)) / len(noise) < 0.1


@pytest.mark.parametrize("name", EACH)
def test_bars_are_learned(name: str) -> None:
    memory = Memory.create(defined(name))
    options = QUICK.model_copy(update={"epochs": 8, "patience": 8, "learning_rate": 1e-2})
    report = memory.learn("task 1", bars(1), options)
    fresh = bars(1, count=60)
    labels = memory.observe(fresh.images).logits("task 1").argmax(1)
    assert float((labels == fresh.labels).float().mean()) > 0.9
    assert report.accuracy["kept"] > 0.9
    assert set(report.units) <= {layer.layer for layer in memory.capacity()}
    json.dumps(report.to_dict())


@pytest.mark.parametrize(
    ("name", "backbone"),
    [
        *((name, "mlp") for name in ALL),
        *((name, "cnn") for name in EACH),
        *(pytest.param(name, "cnn", marks=pytest.mark.slow) for name in ALL if name not in EACH),
    ],
)
def test_what_is_promised_of_old_answers_is_kept(name: str, backbone: str) -> None:
    memory = again(parts_of(name, backbone))
    before = certify(memory)
    memory.learn("task 2", bars(2), QUICK)
    after = certify(memory, learned=before.answers)
    assert after.exact == memory.exact
    if memory.exact:
        assert compare(before, after) == []
    else:
        changed = compare(before, after)
        assert set(after.agreement) == {"task 0", "task 1", "task 2"}
        assert all(0 <= share <= 1 for share in after.agreement.values())
        assert all(after.agreement[task] == 1 for task in ("task 0", "task 1") if task not in changed)
        assert after.agreement["task 2"] == 1


@pytest.mark.parametrize("name", EACH)
def test_bytes_that_are_no_model_are_refused(name: str) -> None:
    parts = parts_of(name)
    for broken in (
        replace(parts, engrams=()),
        replace(parts, engrams=(*parts.engrams[:-1], b"nonsense")),
        replace(parts, recogniser=b"nonsense"),
        replace(parts, kept=(*parts.kept[:-1], b"nonsense")),
    ):
        with pytest.raises(SnapshotError):
            again(broken)


@pytest.mark.parametrize("name", METHODS)
def test_the_papers_settings_are_settings(name: str) -> None:
    for preset in SETTINGS[name].presets:
        settings = Definition(input=defined(name).input, method=name, settings={"preset": preset}).settings
        assert "preset" not in settings
        assert SETTINGS[name].model_validate(settings).model_dump(mode="json") == settings
