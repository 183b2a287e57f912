"""Relevance maps and loose weights as safetensors bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor

from engram.checkpointing.tensors import pack, unpack
from engram.errors import DamagedSnapshot
from engram.methods.rmn.maps import RelevanceMap, shapes, unpacked
from engram.nn.layout import Layout

_GROUPS = ("used", "fixed", "values", "norms")


def dump_map(one: RelevanceMap) -> bytes:
    """One task's map as bytes; bits stay bits."""
    tensors = {f"{group}.{name}": part for group in _GROUPS for name, part in getattr(one, group).items()}
    # Where all that is used is fixed, the same bits need not be there twice.
    for name, bits in one.used.items():
        if torch.equal(bits, one.fixed[name]):
            del tensors[f"fixed.{name}"]
    about = {"task": one.task, "classes": list(one.classes), "units": one.units}
    return pack("map", about, {**tensors, "peak": one.peak})


def load_map(layout: Layout, data: bytes) -> RelevanceMap:
    """One task's map from its bytes.

    Raises
    ------
    DamagedSnapshot, UnsupportedFormat
    """
    about, tensors = unpack("map", data)
    found: dict[str, dict[str, Tensor]] = {group: {} for group in _GROUPS}
    try:
        peak = tensors.pop("peak")
        for name, part in tensors.items():
            group, _, rest = name.partition(".")
            found[group][rest] = part
        used = found["used"]
        one = RelevanceMap(
            str(about["task"]),
            tuple(cast(list[str], about["classes"])),
            cast(dict[str, int], about["units"]),
            used,
            {**used, **found["fixed"]},
            found["values"],
            found["norms"],
            peak,
        )
        for name, shape in shapes(layout, one.units, len(one.classes)).items():
            for bits in (one.used[name], one.fixed[name]):
                unpacked(bits, shape)
            if one.values[name].ndim != 1:
                raise DamagedSnapshot(f"the values of {name} are not a list")
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedSnapshot(f"this map does not fit the model's layout: {error}") from error
    return one


def dump_loose(loose: Mapping[str, Tensor]) -> bytes:
    """The weights that maps use and nobody has fixed, as bytes."""
    return pack("loose", {}, {name: values for name, values in loose.items() if len(values)})


def load_loose(data: bytes) -> dict[str, Tensor]:
    """Loose weights from their bytes; raises DamagedSnapshot, UnsupportedFormat."""
    return unpack("loose", data)[1]
