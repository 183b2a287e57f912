"""Models as files: one safetensors file per engram, and a manifest from which a fresh process rebuilds everything."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from pydantic import ValidationError
from torch import Tensor

from engram.backbones import layout_of
from engram.commons import Commons
from engram.definition import Definition
from engram.density import Density
from engram.errors import DamagedSnapshot, UnsupportedFormat
from engram.layout import Layout
from engram.memory import Memory
from engram.network import Engram, Network
from engram.recogniser import Reading, Recogniser
from engram.sums import Sums
from engram.tensors import FORMAT, content_hash, pack, unpack

MANIFEST = "manifest.json"
_DENSITY = ("means", "directions", "variances", "rest", "centre", "scale", "grades")


@dataclass(frozen=True)
class Parts:
    """A model as bytes: what a vault keeps."""

    definition: Definition
    engrams: tuple[bytes, ...]
    """The commons first, then one for each task."""
    recogniser: bytes
    sums: bytes
    """Only needed to learn; the largest part by far."""
    budget: dict[str, int]


def dump(memory: Memory) -> Parts:
    """A model as bytes; equal models give equal bytes."""
    assert memory.sums is not None, "a model restored without its sums cannot be written again"
    engrams = (_dump_commons(memory.commons), *(dump_engram(engram) for engram in memory.network.stack))
    return Parts(
        memory.definition, engrams, _dump_recogniser(memory.recogniser), _dump_sums(memory.sums), dict(memory.budget)
    )


def restore(
    definition: Definition,
    engrams: Sequence[bytes],
    recogniser: bytes,
    sums: bytes | None,
    budget: Mapping[str, int],
    reuse: Memory | None = None,
) -> Memory:
    """Rebuild a model from its parts alone.

    Parameters
    ----------
    engrams
        The commons first.
    sums
        None for a model that will only answer.
    reuse
        Another version of the same model: engrams with equal bytes are shared with it instead of built again.

    Raises
    ------
    DamagedSnapshot, UnsupportedFormat
    """
    if not engrams:
        raise DamagedSnapshot("a model has at least its commons")
    layout = layout_of(definition)
    known = {} if reuse is None else {engram.content_hash: engram for engram in reuse.network.stack}
    stack = [known.get(content_hash(data)) or load_engram(layout, data) for data in engrams[1:]]
    _check_stack(layout, stack)
    memory = Memory(
        definition,
        Network(layout, stack),
        _load_commons(definition, engrams[0]),
        _load_recogniser(recogniser),
        None if sums is None else _load_sums(sums),
        budget,
    )
    if [reading.task for reading in memory.recogniser.readings] != [engram.task for engram in stack]:
        raise DamagedSnapshot("the recogniser belongs to other tasks than the engrams do")
    return memory


def save(memory: Memory, folder: Path) -> None:
    """Write a model's parts and its manifest into a folder, the manifest last."""
    parts = dump(memory)
    folder.mkdir(parents=True, exist_ok=True)
    names = ["commons.safetensors", *(f"engram-{n:04d}.safetensors" for n in range(1, len(parts.engrams)))]
    files = dict(zip(names, parts.engrams, strict=True))
    files |= {"recogniser.safetensors": parts.recogniser, "sums.safetensors": parts.sums}
    for name, data in files.items():
        (folder / name).write_bytes(data)
    manifest = {
        "format": FORMAT,
        "definition": parts.definition.model_dump(mode="json"),
        "budget": parts.budget,
        "engrams": names,
        "tasks": [{"task": info.name, "classes": list(info.classes)} for info in memory.tasks],
        "sha256": {name: content_hash(data) for name, data in files.items()},
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n")


def load(folder: Path) -> Memory:
    """Rebuild a model from a folder that `save` wrote.

    Raises
    ------
    SnapshotError
        naming the file.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        version, hashes, names = manifest["format"], manifest["sha256"], manifest["engrams"]
        budget = {str(layer): int(units) for layer, units in manifest["budget"].items()}
        if version != FORMAT:
            raise UnsupportedFormat(f"{MANIFEST} is of format {version}; this version reads format {FORMAT}")
        definition = Definition.model_validate(manifest["definition"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ValidationError) as error:
        raise DamagedSnapshot(f"{folder / MANIFEST}: {error}") from error

    def read(name: str) -> bytes:
        try:
            data = (folder / Path(name).name).read_bytes()
        except OSError as error:
            raise DamagedSnapshot(f"{name}: {error}") from error
        if content_hash(data) != hashes.get(name):
            raise DamagedSnapshot(f"{name} is not what the manifest says it is")
        return data

    engrams = [read(name) for name in names]
    return restore(definition, engrams, read("recogniser.safetensors"), read("sums.safetensors"), budget)


def dump_engram(engram: Engram) -> bytes:
    """One engram as bytes."""
    about = {
        "task": engram.task,
        "classes": list(engram.classes),
        "earlier": engram.earlier,
        "units": engram.units,
    }
    data = pack("engram", about, engram.state_dict())
    engram.content_hash = content_hash(data)
    return data


def load_engram(layout: Layout, data: bytes) -> Engram:
    """One frozen engram from its bytes.

    Raises
    ------
    DamagedSnapshot, UnsupportedFormat
    """
    about, tensors = unpack("engram", data)
    try:
        task, classes = str(about["task"]), cast(list[str], about["classes"])
        earlier, units = cast(dict[str, int], about["earlier"]), cast(dict[str, int], about["units"])
        with torch.device("meta"):  # no memory and no random draw for weights that are replaced at once
            engram = Engram(layout, task, classes, earlier, units)
        engram.load_state_dict(tensors, assign=True)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise DamagedSnapshot(f"this engram does not fit the model's layout: {error}") from error
    engram.content_hash = content_hash(data)
    return engram.freeze()


def _check_stack(layout: Layout, stack: Sequence[Engram]) -> None:
    owned = dict.fromkeys(layout.layers, 0)
    for engram in stack:
        if engram.earlier != owned:
            raise DamagedSnapshot(f"the engram of task {engram.task!r} was learned on another stack")
        owned = engram.reach


def _dump_commons(commons: Commons) -> bytes:
    return pack("commons", {"features": commons.features, "patch": commons.patch}, commons.state_dict())


def _load_commons(definition: Definition, data: bytes) -> Commons:
    about, tensors = unpack("commons", data)
    commons = Commons(definition)
    if (about["features"], about["patch"]) != (commons.features, commons.patch):
        raise DamagedSnapshot("the commons are not those of the model's definition")
    try:
        commons.load_state_dict(tensors)
    except RuntimeError as error:
        raise DamagedSnapshot(f"the commons do not fit the model's definition: {error}") from error
    return commons


def _dump_recogniser(recogniser: Recogniser) -> bytes:
    tensors = {
        "weights": recogniser.weights,
        "sharpness": recogniser.sharpness,
        "caution": recogniser.caution,
        "evidence": recogniser.evidence,
    }
    for number, reading in enumerate(recogniser.readings):
        tensors[f"{number}.temperature"] = reading.temperature
        tensors |= {f"{number}.{name}": getattr(reading.density, name) for name in _DENSITY}
    about = {"readings": [{"task": reading.task, "classes": reading.classes} for reading in recogniser.readings]}
    return pack("recogniser", about, tensors)


def _load_recogniser(data: bytes) -> Recogniser:
    about, tensors = unpack("recogniser", data)

    def reading(number: int, row: Mapping[str, object]) -> Reading:
        density = Density(*(tensors[f"{number}.{name}"] for name in _DENSITY))
        return Reading(str(row["task"]), cast(int, row["classes"]), density, tensors[f"{number}.temperature"])

    try:
        rows = cast(list[dict[str, object]], about["readings"])
        readings = tuple(reading(number, row) for number, row in enumerate(rows))
        return Recogniser(tensors["weights"], readings, tensors["sharpness"], tensors["caution"], tensors["evidence"])
    except (KeyError, TypeError) as error:
        raise DamagedSnapshot(f"the recogniser lacks {error}") from error


def _dump_sums(sums: Sums) -> bytes:
    tensors: dict[str, Tensor] = {"gram": sums.packed(), "moments": sums.moments, "counts": sums.counts}
    return pack("sums", {}, tensors)


def _load_sums(data: bytes) -> Sums:
    _, tensors = unpack("sums", data)
    try:
        return Sums.unpacked(tensors["gram"], tensors["moments"], tensors["counts"])
    except (KeyError, RuntimeError) as error:
        raise DamagedSnapshot(f"the sums are damaged: {error}") from error
