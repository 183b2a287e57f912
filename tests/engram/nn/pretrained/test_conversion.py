"""Tests of conversion: what a file holds, a process without a network, objects that would run code."""

from __future__ import annotations

import argparse
import os
import subprocess
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from engram.errors import ConversionRefused, DamagedWeights
from engram.nn.pretrained import conversion
from engram.nn.pretrained.conversion import convert, isolating, state_dict

WEIGHT = torch.arange(3.0)


@pytest.mark.parametrize(
    "read",
    [
        {"a.weight": WEIGHT},
        {"module.a.weight": WEIGHT},
        {"_orig_mod.module.a.weight": WEIGHT},
        {"state_dict": {"a.weight": WEIGHT}, "epoch": 3},
        {"model": {"module.a.weight": WEIGHT}, "optimizer": {"state": {}}},
        {"state_dict_ema": {"a.weight": WEIGHT}},
    ],
)
def test_weights_are_found(read: object) -> None:
    found = state_dict(read)
    assert list(found) == ["a.weight"]
    assert torch.equal(found["a.weight"], WEIGHT)


@pytest.mark.parametrize("read", [None, [WEIGHT], {}, {"epoch": 3}, {"a": WEIGHT, "epoch": 3}])
def test_other_things_are_refused(read: object) -> None:
    with pytest.raises(DamagedWeights):
        state_dict(read)


def test_a_file_is_converted_apart(tmp_path: Path) -> None:
    source, target = tmp_path / "w.pth", tmp_path / "w.safetensors"
    torch.save({"state_dict": {"module.a": WEIGHT, "module.b": WEIGHT[:2]}, "args": argparse.Namespace(x=1)}, source)
    assert convert(source, target, unsafe=True) == 2
    assert torch.equal(safetensors.torch.load_file(target)["b"], WEIGHT[:2])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["w.pth", "w.safetensors"]
    with pytest.raises(FileExistsError):
        convert(source, target, unsafe=True)


def test_objects_are_refused(tmp_path: Path) -> None:
    source, target = tmp_path / "w.pth", tmp_path / "w.safetensors"
    torch.save(nn.Linear(2, 2), source)
    assert "save model.state_dict()" in str(conversion._main(str(source), str(target))["error"])
    source.write_bytes(b"nothing")
    assert "no weights" in str(conversion._main(str(source), str(target))["error"])
    assert not target.exists()
    with pytest.raises(DamagedWeights, match="no file"):
        convert(tmp_path / "other.pth", target, unsafe=True)


def test_with_a_network_it_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "w.pth"
    torch.save({"a": WEIGHT}, source)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert isolating() == ()
    with pytest.raises(ConversionRefused, match="unsafe"):
        convert(source, tmp_path / "w.safetensors")


@pytest.mark.skipif(not isolating(), reason="this system has no namespaces")
def test_the_process_has_no_network() -> None:
    devices = subprocess.run(
        [*isolating(), "cat", "/proc/net/dev"], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    names = [line.split(":")[0].strip() for line in devices.stdout.splitlines() if ":" in line]
    assert names == ["lo"]
