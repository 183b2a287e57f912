"""Registry of the architectures that networks of users may have."""

from __future__ import annotations

import difflib
import importlib.util
import re
from collections.abc import Mapping
from typing import Any

from engram.config.backbones import LARGEST_INPUT, Argument
from engram.errors import InvalidBackbone, UnknownArchitecture
from engram.nn.pretrained.architecture import DYNAMIC, IMG_SIZE, NUM_CLASSES, Architecture
from engram.nn.pretrained.zoos import timm_zoo, torchvision_zoo
from engram.nn.pretrained.zoos.entry_points import entry_point_names, installed

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_MOST_CLASSES = 100_000
_MOST_SHOWN = 5


def architecture_names() -> tuple[str, ...]:
    """All names that can be used here, sorted; those of timm where it is installed."""
    timm = timm_zoo.timm_names() if importlib.util.find_spec("timm") is not None else ()
    return tuple(sorted({*torchvision_zoo.torchvision_names(), *timm, *entry_point_names()}))


def architecture(name: str) -> Architecture:
    """The architecture of a name: `torchvision/NAME`, `timm/NAME`, or the name of an entry point.

    Raises
    ------
    UnknownArchitecture
        where none is called so; the message has similar names.
    ArchitectureMissing
        where what has it is not installed here.
    InvalidBackbone
        where an entry point gives no architecture.
    """
    library, slash, own = name.rpartition("/")
    if not _NAME.fullmatch(own) or library not in ("", "timm", "torchvision"):
        raise _unknown(name)
    if not slash:
        if name not in entry_point_names() and _endings(name):
            raise _unknown(name)
        return installed(name)
    if library == "torchvision":
        if name not in torchvision_zoo.torchvision_names():
            raise _unknown(name)
        return torchvision_zoo.TorchvisionArchitecture(name)
    plain, _, tag = own.partition(".")
    if f"timm/{plain}" not in timm_zoo.timm_names() or (tag and tag not in timm_zoo.tags(f"timm/{plain}")):
        raise _unknown(name)
    return timm_zoo.TimmArchitecture(name)


def allowed_arguments(architecture: Architecture, arguments: Mapping[str, Any]) -> dict[str, Argument]:
    """The arguments, if the architecture may be built with them.

    Raises
    ------
    InvalidBackbone
        for one that is not taken, and for a value of another type or out of range.
    """
    for name, value in arguments.items():
        if name not in architecture.arguments:
            allowed = ", ".join(sorted(architecture.arguments)) or "none"
            raise InvalidBackbone(f"{architecture.name} takes no argument {name!r}; it takes {allowed}")
        if name == DYNAMIC:
            valid = isinstance(value, bool)
        else:
            low, high = {NUM_CLASSES: (0, _MOST_CLASSES), IMG_SIZE: (16, LARGEST_INPUT)}[name]
            valid = isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
        if not valid:
            raise InvalidBackbone(f"the argument {name} cannot be {value!r}")
    return dict(arguments)


def _endings(name: str) -> list[str]:
    return [one for one in architecture_names() if one.rpartition("/")[2] == name]


def _unknown(name: str) -> UnknownArchitecture:
    known = architecture_names()
    plain = name.rpartition("/")[2]
    close = difflib.get_close_matches(plain, {one.rpartition("/")[2] for one in known}, _MOST_SHOWN, 0.7)
    similar = _endings(plain) or [one for word in close for one in _endings(word)]
    hint = f"; there are {', '.join(similar[:_MOST_SHOWN])}" if similar else ""
    return UnknownArchitecture(f"no architecture is called {name[:100]!r}{hint}")
