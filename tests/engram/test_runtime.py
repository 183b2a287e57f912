"""Tests of memory, of garbage that is set aside, and of what bits depend on."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.optim import LBFGS, SGD, Adam, AdamW, Optimizer

from engram.runtime import driver, environment, fetched, sent, uncompiled

SCRIPT = """
from pathlib import Path
import torch
from engram.runtime import configure, give_back_freed_memory

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4 // 1024  # MiB

configure(1)
before = resident()
taken = [torch.ones(16 * 1024) for _ in range(3200)]  # 200 MiB
last = torch.ones(16)
full = resident()
del taken
freed = resident()
give_back_freed_memory()
print(full - before, freed - before, resident() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only the C library of Linux is configured")
def test_freed_memory_is_kept_until_it_is_given_back() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, timeout=240)
    full, freed, after = map(int, done.stdout.split())
    assert full > 190
    assert freed > 190
    assert after < 50


def test_what_is_set_aside_is_passed_over_until_all_is_looked_at() -> None:
    """In a process of its own, as it would be left with what is set aside."""
    program = """
import gc, weakref
from engram.runtime import look_at_all, set_aside, set_more_aside

class Circle:
    def __init__(self):
        self.itself = self

def gone(reference):
    gc.collect()
    return reference() is None

gc.disable()
set_more_aside()
assert gc.get_freeze_count() == 0, "nothing was set aside before"
early = Circle()
set_aside()
late, reference = Circle(), weakref.ref(early)
alone = [weakref.ref(late)]
del early
assert not gone(reference), "it was set aside"
look_at_all()
assert gone(reference)
count = gc.get_freeze_count()
set_more_aside()
assert gc.get_freeze_count() >= count
del late
assert not gone(alone[0])

class Plain:
    pass

plain = Plain()
set_more_aside()
reference = weakref.ref(plain)
del plain
assert reference() is None, "what is in no circle needs no collection"
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_from_the_end_of_imports_on_garbage_is_collected_but_none_of_theirs() -> None:
    """In a process of its own, which begins as a server does."""
    program = """
import gc, weakref
gc.disable()
from engram.runtime import look_at_all, set_aside_imports

class Circle:
    def __init__(self):
        self.itself = self

early = Circle()
known = weakref.ref(early)
del early
set_aside_imports()
assert gc.isenabled()
assert gc.get_freeze_count() > 100_000, "PyTorch is set aside"
looks = gc.get_stats()[0]["collections"]
held = [[] for _ in range(4000)]
assert gc.get_stats()[0]["collections"] == looks, "so many objects are usual"
held = [[] for _ in range(20_000)]
assert gc.get_stats()[0]["collections"] > looks
late = Circle()
reference = weakref.ref(late)
del late
gc.collect()
assert reference() is None
assert known() is not None, "nobody looked"
look_at_all()
assert known() is None
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_driver_of_a_gpu_is_read_where_linux_says_it(tmp_path: Path) -> None:
    file = tmp_path / "version"
    assert driver(file) is None
    file.write_text(
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024\nGCC version:\n"
    )
    assert driver(file) == "550.54.15"
    file.write_text("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.124  Release Build  (root@here)\n")
    assert driver(file) == "570.124"
    file.write_text("something else\n")
    assert driver(file) is None


def test_a_processor_has_no_driver_among_what_bits_depend_on() -> None:
    assert environment(torch.device("cpu")).keys() == {
        "torch",
        "threads",
        "device",
        "platform",
        "cpu_capability",
        "processor",
    }


def test_what_is_fetched_together_is_what_each_would_be() -> None:
    features, logits = torch.randn(3, 5), torch.randn(3, 2)
    found = fetched(features, logits)
    assert torch.equal(found[0], features)
    assert torch.equal(found[1], logits)
    assert all(one.is_contiguous() for one in found)
    assert [one.shape for one in fetched(features[:, :0], logits[1:], logits.T)] == [(3, 0), (2, 2), (2, 3)]
    assert torch.equal(fetched(features, logits.T)[1], logits.T)


def test_images_that_lie_on_a_gpu_already_are_not_pinned() -> None:
    gpu = torch.device("cuda")
    taken: list[tuple[object, ...]] = []

    class There(torch.Tensor):
        device = gpu

        def to(self, *given: object, **_: object) -> torch.Tensor:
            taken.append(given)
            return self

        def pin_memory(self, *_: object) -> torch.Tensor:
            raise RuntimeError("only what lies on the processor can be pinned")

    images = torch.zeros(1, 3, 4, 4, dtype=torch.uint8).as_subclass(There)
    assert sent(images, gpu) is images
    assert taken == [(gpu,)]


@pytest.mark.parametrize(
    ("kind", "given"),
    [(SGD, {"lr": 0.1, "momentum": 0.9}), (Adam, {}), (AdamW, {"fused": True}), (LBFGS, {"max_iter": 3})],
)
def test_steps_without_the_compiler_are_pytorchs_to_the_bit(kind: type[Optimizer], given: dict[str, object]) -> None:
    torch.manual_seed(0)
    images = torch.randn(8, 5)
    nets = [torch.nn.Linear(5, 3)]
    nets.append(copy.deepcopy(nets[0]))
    makes: list[Callable[..., Optimizer]] = [kind, uncompiled(kind)]
    optimisers = [make(net.parameters(), **given) for make, net in zip(makes, nets, strict=True)]
    for number in range(4):
        for at, net in enumerate(nets):
            optimiser = optimisers[at]

            def loss(net: torch.nn.Module = net, optimiser: Optimizer = optimiser) -> float:
                optimiser.zero_grad()
                found = net(images).square().mean()
                found.backward()
                return float(found.detach())

            optimiser.step(loss)
            if number == 1:  # goes on from what is stored
                optimisers[at] = makes[at](net.parameters(), **given)
                optimisers[at].load_state_dict(optimiser.state_dict())
        assert all(a.equal(b) for a, b in zip(*(net.parameters() for net in nets), strict=True))
    assert isinstance(optimisers[1], kind)
    assert not any(parameter.grad is None for net in nets for parameter in net.parameters())
