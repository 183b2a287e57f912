"""The parts of models on blocks as safetensors bytes, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal, cast

import torch
from torch import nn

from engram.commons import Commons
from engram.definition import Definition
from engram.density import Density
from engram.errors import DamagedSnapshot
from engram.grades import Grades
from engram.layout import Layout
from engram.network import Engram
from engram.recogniser import PARTS, TRUST, Reading, Recogniser
from engram.scatter import Scatter
from engram.sums import PackedSums
from engram.tensors import content_hash, pack, unpack
from engram.usual import Usual

_DENSITY = ("means", "directions", "variances", "rest", "centre", "scale", "grades")
_GRADES = ("centre", "scale", "values")
_SCATTER = ("directions", "means")


def load_stack(
    definition: Definition, layout: Layout, engrams: Sequence[bytes], known: Sequence[Engram] = ()
) -> tuple[Commons, list[Engram]]:
    """The commons, which come first, and the engrams on top of them.

    Parameters
    ----------
    known
        Engrams that are taken instead of building equal ones again.

    Raises
    ------
    DamagedSnapshot, UnsupportedFormat
    """
    if not engrams:
        raise DamagedSnapshot("a model has at least its commons")
    return load_commons(definition, engrams[0]), load_engrams(layout, engrams[1:], known)


def load_engrams(layout: Layout, engrams: Sequence[bytes], known: Sequence[Engram] = ()) -> list[Engram]:
    """Engrams, each learned on those before it; raises DamagedSnapshot, UnsupportedFormat."""
    by_hash = {engram.content_hash: engram for engram in known}
    stack = [by_hash.get(content_hash(data)) or load_engram(layout, data) for data in engrams]
    _check_stack(layout, stack)
    return stack


def check_readings(recogniser: Recogniser, tasks: Sequence[str]) -> None:
    """Refuse a recogniser of other tasks than these; raises DamagedSnapshot."""
    if [reading.task for reading in recogniser.readings] != list(tasks):
        raise DamagedSnapshot("the recogniser belongs to other tasks than the engrams do")


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
            if "common.weight" in tensors:
                engram.common = nn.Linear(tensors["common.weight"].shape[1], len(classes))
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


def dump_commons(commons: Commons) -> bytes:
    """The commons as bytes."""
    about = {"filters": commons.kind, "features": commons.features, "patch": commons.patch}
    return pack("commons", about, commons.state_dict())


def load_commons(definition: Definition, data: bytes) -> Commons:
    """The commons; raises DamagedSnapshot, UnsupportedFormat."""
    about, tensors = unpack("commons", data)
    kind, patch, told = about.get("filters", "smooth"), about.get("patch"), definition.commons
    if told.kind is None and kind in ("smooth", "learned") and isinstance(patch, int):
        # What the kind is when none is told has changed since the first models were made.
        told = told.model_copy(update={"kind": kind, "patch": patch})
        definition = definition.model_copy(update={"commons": told})
    commons = Commons(definition)
    if (kind, about.get("features"), patch) != (commons.kind, commons.features, commons.patch):
        raise DamagedSnapshot("the commons are not those of the model's definition")
    try:
        commons.load_state_dict({"offsets": torch.zeros(len(commons.filters.weight)), **tensors})
    except RuntimeError as error:
        raise DamagedSnapshot(f"the commons do not fit the model's definition: {error}") from error
    return commons


def dump_recogniser(recogniser: Recogniser) -> bytes:
    """What is served of a recogniser, as bytes."""
    tensors = {
        "weights": recogniser.weights,
        "sharpness": recogniser.sharpness,
        "caution": recogniser.caution,
        "trust": recogniser.trust,
        "evidence": recogniser.evidence,
    }
    about, of_readings = readings_told(recogniser.readings)
    detectors = enumerate(reading.detector for reading in recogniser.readings)
    tensors |= {f"{number}.detector": detector for number, detector in detectors if detector is not None}
    if recogniser.scatter is not None:
        tensors |= {f"scatter.{name}": getattr(recogniser.scatter, name) for name in _SCATTER}
    return pack("recogniser", {**about, "parts": list(recogniser.parts)}, {**tensors, **of_readings})


def load_recogniser(data: bytes) -> Recogniser:
    """A recogniser; raises DamagedSnapshot, UnsupportedFormat."""
    about, tensors = unpack("recogniser", data)
    readings = tuple(
        replace(reading, detector=tensors.get(f"{number}.detector"))
        for number, reading in enumerate(read_readings(about, tensors))
    )
    try:
        return Recogniser(
            tensors["weights"],
            readings,
            tensors["sharpness"],
            tensors["caution"],
            tensors.get("trust", torch.tensor(TRUST)),
            tensors["evidence"],
            tuple(cast(list[str], about.get("parts", PARTS))),
            Scatter(*(tensors[f"scatter.{name}"] for name in _SCATTER)) if "scatter.means" in tensors else None,
        )
    except KeyError as error:
        raise DamagedSnapshot(f"the recogniser lacks {error}") from error


def readings_told(readings: Sequence[Reading]) -> tuple[dict[str, object], dict[str, torch.Tensor]]:
    """The header and the tensors that `read_readings` takes."""
    rows = [{"task": reading.task, "classes": reading.classes, "over": reading.over} for reading in readings]
    tensors = {}
    for number, reading in enumerate(readings):
        tensors[f"{number}.temperature"] = reading.temperature
        tensors |= {f"{number}.{name}": getattr(reading.density, name) for name in _DENSITY}
        if reading.usual is not None:
            for kind, grades in (("scattered", reading.usual.scattered), ("both", reading.usual.both)):
                tensors |= {f"{number}.{kind}.{name}": getattr(grades, name) for name in _GRADES}
    return {"readings": rows}, tensors


def read_readings(about: Mapping[str, object], tensors: Mapping[str, torch.Tensor]) -> tuple[Reading, ...]:
    """What a recogniser knows of each task; raises DamagedSnapshot."""

    def reading(number: int, row: Mapping[str, object]) -> Reading:
        density = Density(*(tensors[f"{number}.{name}"] for name in _DENSITY))
        over: Literal["commons", "features"] = "commons" if row.get("over") == "commons" else "features"
        temperature, usual = tensors[f"{number}.temperature"], None
        if f"{number}.scattered.values" in tensors:
            kinds = ([tensors[f"{number}.{kind}.{name}"] for name in _GRADES] for kind in ("scattered", "both"))
            usual = Usual(*(Grades(*kind) for kind in kinds))
        return Reading(str(row["task"]), cast(int, row["classes"]), density, temperature, over=over, usual=usual)

    try:
        rows = cast(list[dict[str, object]], about["readings"])
        return tuple(reading(number, row) for number, row in enumerate(rows))
    except (KeyError, TypeError) as error:
        raise DamagedSnapshot(f"the recogniser lacks {error}") from error


def dump_sums(sums: PackedSums) -> bytes:
    """One task's sums as bytes."""
    tensors = _named_sums(sums, "")
    for number, prefix in enumerate(sums.prefixes):
        tensors |= _named_sums(prefix, f"{number}.")
    return pack("sums", {"prefixes": len(sums.prefixes)}, tensors)


def _named_sums(sums: PackedSums, before: str) -> dict[str, torch.Tensor]:
    return {f"{before}gram": sums.triangle, f"{before}moments": sums.moments, f"{before}counts": sums.counts}


def load_sums(data: bytes) -> PackedSums:
    """One task's sums; raises DamagedSnapshot, UnsupportedFormat."""
    about, tensors = unpack("sums", data)
    prefixes = tuple(_read_sums(tensors, f"{number}.") for number in range(cast(int, about.get("prefixes", 0))))
    return replace(_read_sums(tensors, ""), prefixes=prefixes)


def _read_sums(tensors: Mapping[str, torch.Tensor], before: str) -> PackedSums:
    try:
        sums = PackedSums(tensors[f"{before}gram"], tensors[f"{before}moments"], tensors[f"{before}counts"])
    except KeyError as error:
        raise DamagedSnapshot(f"the sums lack {error}") from error
    size = len(sums.moments)
    if len(sums.triangle) != size * (size + 1) // 2 or sums.moments.shape[1] != len(sums.counts):
        raise DamagedSnapshot("the parts of the sums do not fit each other")
    return sums
