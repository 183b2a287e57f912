"""The task recogniser as safetensors bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, cast

import torch

from engram.checkpointing.tensors import pack, unpack
from engram.errors import DamagedSnapshot
from engram.recognition.class_scatter import ClassScatter
from engram.recognition.conformal import CombinedScore, ConformalScores
from engram.recognition.density import Density
from engram.recognition.heads.head_balance import HeadBalance
from engram.recognition.recogniser import PARTS, TRUST, Recogniser, TaskProfile

_DENSITY = {
    "means": "means",
    "directions": "directions",
    "variances": "variances",
    "rest": "rest",
    "centre": "centre",
    "scale": "scale",
    "grades": "quantiles",
}
"""Names in files, in the order of `Density`'s fields, and the fields."""
_COUNTS = ("scored", "noise")
"""Fields of a profile that those of the first recipe lack."""
_SCORES = ("centre", "scale", "values")
_BALANCE = ("offset", "log_prior")
_SCATTER = ("directions", "means")


def check_profiles(recogniser: Recogniser, tasks: Sequence[str]) -> None:
    """Refuse a recogniser of other tasks than these; raises DamagedSnapshot."""
    if [profile.task for profile in recogniser.profiles] != list(tasks):
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
    about, of_profiles = pack_profiles(recogniser.profiles)
    detectors = enumerate(profile.detector for profile in recogniser.profiles)
    tensors |= {f"{number}.detector": detector for number, detector in detectors if detector is not None}
    if recogniser.scatter is not None:
        tensors |= {f"scatter.{name}": getattr(recogniser.scatter, name) for name in _SCATTER}
    return pack("recogniser", {**about, "parts": list(recogniser.parts)}, {**tensors, **of_profiles})


def load_recogniser(data: bytes) -> Recogniser:
    """A recogniser; raises DamagedSnapshot, UnsupportedFormat."""
    about, tensors = unpack("recogniser", data)
    profiles = tuple(
        replace(profile, detector=tensors.get(f"{number}.detector"))
        for number, profile in enumerate(unpack_profiles(about, tensors))
    )
    try:
        return Recogniser(
            tensors["weights"],
            profiles,
            tensors["sharpness"],
            tensors["caution"],
            tensors.get("trust", torch.tensor(TRUST)),
            tensors["evidence"],
            tuple(cast(list[str], about.get("parts", PARTS))),
            ClassScatter(*(tensors[f"scatter.{name}"] for name in _SCATTER)) if "scatter.means" in tensors else None,
        )
    except KeyError as error:
        raise DamagedSnapshot(f"the recogniser lacks {error}") from error


def pack_profiles(profiles: Sequence[TaskProfile]) -> tuple[dict[str, object], dict[str, torch.Tensor]]:
    """The header and the tensors that `unpack_profiles` takes."""
    rows: list[dict[str, object]] = [
        {"task": profile.task, "classes": profile.classes, "over": profile.over}
        | {name: value for name in _COUNTS if (value := getattr(profile, name)) is not None}
        for profile in profiles
    ]
    tensors = {}
    for number, profile in enumerate(profiles):
        tensors[f"{number}.temperature"] = profile.temperature
        tensors |= {f"{number}.{name}": getattr(profile.density, field) for name, field in _DENSITY.items()}
        if profile.balance is not None:
            tensors |= {f"{number}.balance.{name}": getattr(profile.balance, name) for name in _BALANCE}
        if profile.combined is not None:
            for kind, scores in (("scattered", profile.combined.scattered), ("both", profile.combined.both)):
                tensors |= {f"{number}.{kind}.{name}": getattr(scores, name) for name in _SCORES}
    return {"readings": rows}, tensors


def unpack_profiles(about: Mapping[str, object], tensors: Mapping[str, torch.Tensor]) -> tuple[TaskProfile, ...]:
    """What a recogniser knows of each task; raises DamagedSnapshot."""

    def profile(number: int, row: Mapping[str, object]) -> TaskProfile:
        density = Density(*(tensors[f"{number}.{name}"] for name in _DENSITY))
        over: Literal["commons", "features"] = "commons" if row.get("over") == "commons" else "features"
        temperature, combined = tensors[f"{number}.temperature"], None
        if f"{number}.scattered.values" in tensors:
            kinds = ([tensors[f"{number}.{kind}.{name}"] for name in _SCORES] for kind in ("scattered", "both"))
            combined = CombinedScore(*(ConformalScores(*kind) for kind in kinds))
        balance = None
        if f"{number}.balance.offset" in tensors:
            balance = HeadBalance(*(tensors[f"{number}.balance.{name}"] for name in _BALANCE))
        counts = {name: cast(Any, row.get(name)) for name in _COUNTS}
        found = TaskProfile(
            str(row["task"]), cast(int, row["classes"]), density, temperature, None, over, combined, **counts
        )
        return replace(found, balance=balance)

    try:
        rows = cast(list[dict[str, object]], about["readings"])
        return tuple(profile(number, row) for number, row in enumerate(rows))
    except (KeyError, TypeError) as error:
        raise DamagedSnapshot(f"the recogniser lacks {error}") from error
