"""The task recogniser as safetensors bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal, cast

import torch

from engram.checkpointing.tensors import pack, unpack
from engram.errors import DamagedSnapshot
from engram.recognition.class_scatter import ClassScatter
from engram.recognition.conformal import CombinedScore, ConformalScores
from engram.recognition.density import Density
from engram.recognition.recogniser import PARTS, TRUST, Reading, Recogniser

_DENSITY = ("means", "directions", "variances", "rest", "centre", "scale", "grades")
_SCORES = ("centre", "scale", "values")
_SCATTER = ("directions", "means")


def check_readings(recogniser: Recogniser, tasks: Sequence[str]) -> None:
    """Refuse a recogniser of other tasks than these; raises DamagedSnapshot."""
    if [reading.task for reading in recogniser.readings] != list(tasks):
        raise DamagedSnapshot("the recogniser belongs to other tasks than the engrams do")


def dump_recogniser(recogniser: Recogniser) -> bytes:
    """What is served of a recogniser, as bytes."""
    tensors = {
        "weights": recogniser.weights,
        "sharpness": recogniser.sharpness,
        "caution": recogniser.caution,
        "trust": recogniser.trust,
        "evidence": recogniser.evidence,
    }
    about, of_readings = pack_readings(recogniser.readings)
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
        for number, reading in enumerate(unpack_readings(about, tensors))
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
            ClassScatter(*(tensors[f"scatter.{name}"] for name in _SCATTER)) if "scatter.means" in tensors else None,
        )
    except KeyError as error:
        raise DamagedSnapshot(f"the recogniser lacks {error}") from error


def pack_readings(readings: Sequence[Reading]) -> tuple[dict[str, object], dict[str, torch.Tensor]]:
    """The header and the tensors that `unpack_readings` takes."""
    rows = [{"task": reading.task, "classes": reading.classes, "over": reading.over} for reading in readings]
    tensors = {}
    for number, reading in enumerate(readings):
        tensors[f"{number}.temperature"] = reading.temperature
        tensors |= {f"{number}.{name}": getattr(reading.density, name) for name in _DENSITY}
        if reading.combined is not None:
            for kind, scores in (("scattered", reading.combined.scattered), ("both", reading.combined.both)):
                tensors |= {f"{number}.{kind}.{name}": getattr(scores, name) for name in _SCORES}
    return {"readings": rows}, tensors


def unpack_readings(about: Mapping[str, object], tensors: Mapping[str, torch.Tensor]) -> tuple[Reading, ...]:
    """What a recogniser knows of each task; raises DamagedSnapshot."""

    def reading(number: int, row: Mapping[str, object]) -> Reading:
        density = Density(*(tensors[f"{number}.{name}"] for name in _DENSITY))
        over: Literal["commons", "features"] = "commons" if row.get("over") == "commons" else "features"
        temperature, combined = tensors[f"{number}.temperature"], None
        if f"{number}.scattered.values" in tensors:
            kinds = ([tensors[f"{number}.{kind}.{name}"] for name in _SCORES] for kind in ("scattered", "both"))
            combined = CombinedScore(*(ConformalScores(*kind) for kind in kinds))
        return Reading(str(row["task"]), cast(int, row["classes"]), density, temperature, over=over, combined=combined)

    try:
        rows = cast(list[dict[str, object]], about["readings"])
        return tuple(reading(number, row) for number, row in enumerate(rows))
    except (KeyError, TypeError) as error:
        raise DamagedSnapshot(f"the recogniser lacks {error}") from error
