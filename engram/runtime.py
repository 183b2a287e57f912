"""PyTorch's threads, determinism and memory in this process, and what the bits of answers depend on."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import inspect
import os
import platform
import re
import sys
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from functools import cache
from pathlib import Path
from typing import TypeVar, cast

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.weak import WeakIdKeyDictionary

Kind = TypeVar("Kind", bound=Optimizer)

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT_BYTES = 2**30
_CPU_FILE = Path("/proc/cpuinfo")
_DRIVER_FILE = Path("/proc/driver/nvidia/version")
_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
"""With some of its values NVIDIA's products of matrices have the same bytes every time."""
_BF16_FEATURES = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
"""What Linux calls instructions for numbers of 16 bits with the exponent of 32, on x86 and on Arm."""
_MMAP_THRESHOLDS = (2**25, 2**28)
"""Ever larger ones; a glibc that takes none over 32 MB stays with the first."""

RESIDENT_SHARE = 0.25
"""Share of a GPU's free memory that the images of a task may take while it is learned; those that do not fit are sent
batch by batch."""

_YOUNG = 5000
"""Objects after which the youngest are looked through. Those of 32 requests under way are more than the usual 700, and
hardly ever garbage in circles."""

_has_set_aside = False
"""Whether anything is; the collector itself would count all of it, which stops every thread for 50 ms."""


def configure(threads: int) -> None:
    """Fix the thread count, ask for deterministic algorithms, and keep freed memory.

    Bits depend on both of the first: an answer is the same again only for the same number of threads. Two processes
    with as many threads as there are cores slow each other down tenfold, so services and workers choose theirs apart.
    """
    torch.set_num_threads(threads)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    keep_freed_memory()


def uncompiled(kind: type[Kind]) -> type[Kind]:
    """The same optimiser of PyTorch's, which takes its steps without PyTorch's compiler.

    All of them import it when they are made, though nothing is compiled: more than a second and 74 MB, a fifth of the
    time that learning from 200 images takes. The computation is theirs, to the bit.
    """
    return cast(type[Kind], _uncompiled(kind))  # type: ignore[arg-type]  # a class is hashable


@cache
def _uncompiled(kind: type[Optimizer]) -> type[Optimizer]:
    apart = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")
    methods = {name: inspect.unwrap(getattr(kind, name)) for name in apart}
    methods["step"] = torch.no_grad()(inspect.unwrap(kind.step))
    return type(kind.__name__, (kind,), {**methods, "__doc__": kind.__doc__})


def prepare(device: torch.device) -> None:
    """Have a device compute the same bytes every time; to be called before anything is computed on it.

    An operation that cannot be the same every time on a GPU then raises RuntimeError, as PyTorch has it.
    """
    if device.type == "cuda":
        # Read when the first product is computed; another value that is set already may be as good.
        os.environ.setdefault(_WORKSPACE, ":4096:8")
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # a property


def sent(images: Tensor, device: torch.device) -> Tensor:
    """Images on a device; from the processor to a GPU they are sent by one copy that nothing waits for."""
    if device.type == "cuda" and images.device.type == "cpu":  # what is there already cannot be pinned
        return images.pin_memory().to(device, non_blocking=True)
    return images.to(device)


def fetched(*values: Tensor) -> tuple[Tensor, ...]:
    """Values of a device, all of one type, on the processor, by one copy: each costs a GPU a wait."""
    flat = torch.cat([value.flatten() for value in values]).cpu()
    parts = torch.split(flat, [value.numel() for value in values])
    return tuple(part.view(value.shape) for part, value in zip(parts, values, strict=True))


def _free_bytes(device: torch.device) -> int:
    """Memory that is free on a GPU; of other devices none is counted on."""
    return int(torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else 0


class Placement:
    """Rows of tensors on the device that learns from them, where each tensor is sent once if there is room for it.

    Which values a row has does not depend on that, so nothing that is learned does.

    Parameters
    ----------
    room
        Bytes of the device that all tensors together may take; by default `RESIDENT_SHARE` of what is free now.
    """

    def __init__(self, device: torch.device, room: int | None = None) -> None:
        self.device = device
        self._room = int(RESIDENT_SHARE * _free_bytes(device)) if room is None else room
        # What nobody learns from any more makes room.
        self._there: MutableMapping[Tensor, Tensor | None] = WeakIdKeyDictionary()

    def rows(self, values: Tensor, chosen: Tensor) -> Tensor:
        """(B, ...) of values (N, ...), which do not change meanwhile, at `chosen` (B,) int64."""
        if values.device == self.device:
            return values[chosen.to(self.device)]
        there = self._sent_once(values)
        return sent(values[chosen], self.device) if there is None else there[sent(chosen, self.device)]

    def _sent_once(self, values: Tensor) -> Tensor | None:
        """All of the values on the device; None where they do not fit."""
        if values not in self._there:
            taken = sum(one.nbytes for one in self._there.values() if one is not None)
            found = None
            if taken + values.nbytes <= self._room:
                with contextlib.suppress(torch.OutOfMemoryError):  # another process may have taken it
                    found = values.to(self.device)
            self._there[values] = found
        return self._there[values]


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """Compute with so many threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def keep_freed_memory() -> None:
    """Have glibc keep what is freed: handing it back after each convolution costs more than the arithmetic."""
    if sys.platform != "linux":
        return
    with contextlib.suppress(OSError, AttributeError):  # another C library, which has its own ways
        libc = ctypes.CDLL(None)
        for threshold in _MMAP_THRESHOLDS:
            libc.mallopt(_M_MMAP_THRESHOLD, threshold)
        libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


def give_back_freed_memory() -> None:
    """Hand free memory back to the system; to be called now and then in a process that runs for weeks.

    `keep_freed_memory` keeps as much as the busiest moment took, which only grows. Handing it back takes some
    milliseconds, and what is needed again is asked for again.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL(None).malloc_trim(0)


def set_aside() -> None:
    """Have collections of garbage pass over all that lives now: what a process imports and serves lives as long as it.

    A full collection stops every thread while it looks at each object, several hundred thousand once PyTorch is
    imported. What is set aside is still freed when nothing refers to it any more, unless it does so in a circle: those
    are found by `look_at_all`. To be called when a process has imported what it needs.
    """
    global _has_set_aside
    gc.collect()
    gc.freeze()
    _has_set_aside = True


def set_aside_imports() -> None:
    """As `set_aside` at the start of a process, from which on garbage is collected, also where it was not before.

    What imports leave behind is too little to be looked for, which would take as long as a tenth of them.
    """
    global _has_set_aside
    gc.set_threshold(_YOUNG)
    gc.freeze()
    gc.enable()
    _has_set_aside = True


def set_more_aside() -> None:
    """As `set_aside`, for what was loaded since; nothing in a process that has set nothing aside.

    It takes as long as it takes to look at what is new.
    """
    if _has_set_aside:
        set_aside()


def look_at_all() -> None:
    """Collect garbage among what is set aside too, which stops every thread for as long as any full collection did."""
    if _has_set_aside:
        gc.unfreeze()
        set_aside()


def environment(device: torch.device, networks: Sequence[Mapping[str, str]] = ()) -> dict[str, object]:
    """The software and hardware that the bits of an answer depend on, besides the model and the batch.

    Parameters
    ----------
    networks
        What the networks that a model was given are built with, where it has any.
    """
    found: dict[str, object] = {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "processor": _processor(),
    }
    if device.type == "cuda":
        found |= _of_gpu(device)
    return {**found, "networks": list(networks)} if networks else found


def _of_gpu(device: torch.device) -> dict[str, object]:
    """What the bits of a GPU's answers depend on besides its name."""
    return {
        "capability": ".".join(map(str, torch.cuda.get_device_capability(device))),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]  # torch leaves it untyped
        "cublas_workspace": os.environ.get(_WORKSPACE),
        "driver": driver(),
    }


def driver(file: Path = _DRIVER_FILE) -> str | None:
    """The version of NVIDIA's driver; None where Linux does not say."""
    with contextlib.suppress(OSError):
        found = re.search(r"^NVRM version: .*?\s(\d+\.\d+(\.\d+)?)\s", file.read_text(errors="replace"), re.MULTILINE)
        return None if found is None else found[1]
    return None


def environment_difference(certified: Mapping[str, object], here: Mapping[str, object]) -> str | None:
    """What computes differently here than in the environment of a certificate, as part of a sentence; None if nothing.

    What a certificate of an earlier release does not name is not compared.
    """
    names = [name for name in certified if certified[name] != here.get(name)]
    names += [name for name in ("networks",) if name in here and name not in certified]
    return ", ".join(f"{name} {here.get(name)} instead of {certified.get(name)}" for name in names) or None


def has_bf16(device: torch.device) -> bool:
    """Whether a device has instructions for bfloat16; without them PyTorch computes the same slowly, or otherwise."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    features = _of_processor("flags", "Features") or ""
    return device.type == "cpu" and not _BF16_FEATURES.isdisjoint(features.split())


def _processor() -> str:
    """The model of the processor: libraries choose their kernels by it, not by its instruction set alone."""
    return _of_processor("model name", "CPU part") or platform.processor() or platform.machine()


@cache
def _of_processor(*names: str) -> str | None:
    """What Linux says of the first processor under the first of some names that it has; None where it says nothing."""
    with contextlib.suppress(OSError):
        for line in _CPU_FILE.read_text(errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() in names:
                return value.strip()
    return None
