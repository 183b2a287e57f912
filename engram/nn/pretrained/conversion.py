"""Conversion of a `.pth` file to safetensors, in a process without a network."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from engram.errors import ConversionRefused, DamagedWeights

_KEYS = ("state_dict", "model_state_dict", "model_state", "state_dict_ema", "model_ema", "model", "net")
"""Under which training programs keep the weights, beside the optimiser and what else they save."""
_PREFIXES = ("module.", "_orig_mod.")
"""Of parallel and of compiled modules."""
_SECONDS = 600.0
_ISOLATIONS = ("-n", "-rn")
"""Of `unshare`: a network namespace of its own, for root, and for a user who is root in a namespace of users."""


def convert(source: str | PathLike[str], target: str | PathLike[str], *, unsafe: bool = False) -> int:
    """Write the weights of a `.pth` file as safetensors; returns how many tensors there are.

    The file is read in a process of its own that has no network and nothing of the environment, by PyTorch's reader of
    plain weights: objects that would run code are refused, also with `unsafe`, which only allows that there is no way
    here to take the network away.

    Raises
    ------
    ConversionRefused
        where the process cannot be kept from the network, unless `unsafe`.
    DamagedWeights
        where the file has no weights that can be read.
    FileExistsError
        where the target is there already.
    """
    path, written = Path(source).resolve(), Path(target).resolve()
    if written.exists():
        raise FileExistsError(f"{written} is there already")
    if not path.is_file():
        raise DamagedWeights(f"{path} is no file")
    isolation = isolating()
    if not isolation and not unsafe:
        raise ConversionRefused(
            "this system does not let a process be started without a network (unshare): convert the file in a "
            "container without one, or allow it to be read here as it is (unsafe)"
        )
    partial = written.with_name(f".{written.name}.{os.getpid()}")
    try:
        count = _converted(isolation, path, partial)
        os.link(partial, written)
    finally:
        partial.unlink(missing_ok=True)
    return count


def isolating() -> tuple[str, ...]:
    """The command by which a process is started without a network here; empty where there is none."""
    program = shutil.which("unshare")
    if program is not None:
        for flags in _ISOLATIONS:
            tried = subprocess.run([program, flags, "true"], stdin=subprocess.DEVNULL, capture_output=True)
            if tried.returncode == 0:
                return (program, flags)
    return ()


def _converted(isolation: tuple[str, ...], source: Path, target: Path) -> int:
    path = os.pathsep.join(os.path.abspath(folder) for folder in sys.path)
    command = [*isolation, sys.executable, "-P", "-m", "engram.nn.pretrained.conversion", str(source), str(target)]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            env={"PYTHONPATH": path, "LC_ALL": "C.UTF-8"},
            cwd="/",
        )
        answer = json.loads(done.stdout)
    except subprocess.TimeoutExpired as error:
        raise DamagedWeights(f"reading the file takes longer than {_SECONDS:g} s") from error
    except ValueError as error:
        raise DamagedWeights("the file ended the process that read it") from error
    if "error" in answer:
        raise DamagedWeights(str(answer["error"]))
    return int(answer["tensors"])


def state_dict(read: object) -> dict[str, Tensor]:
    """The weights in what a file holds, by their names in the architecture.

    Raises
    ------
    DamagedWeights
        where there are none.
    """
    found = read
    if isinstance(read, Mapping) and not any(isinstance(value, Tensor) for value in read.values()):
        found = next((read[key] for key in _KEYS if isinstance(read.get(key), Mapping)), read)
    if not isinstance(found, Mapping) or not found:
        raise DamagedWeights("the file holds no mapping of names to tensors: save model.state_dict()")
    others = [str(name) for name, value in found.items() if not isinstance(value, Tensor) or not isinstance(name, str)]
    if others:
        raise DamagedWeights(f"the file holds other things than tensors: {', '.join(others[:4])}")
    tensors: dict[str, Tensor] = dict(found)
    while prefix := next((one for one in _PREFIXES if all(name.startswith(one) for name in tensors)), ""):
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors


def _read(path: str) -> Any:
    # What training programs often lay beside the weights; all of these are plain data.
    with torch.serialization.safe_globals([argparse.Namespace]):
        return torch.load(path, map_location="cpu", weights_only=True)


def _main(source: str, target: str) -> dict[str, object]:
    try:
        tensors = {name: one.detach().clone().contiguous() for name, one in state_dict(_read(source)).items()}
        save_file(tensors, target)
    except Exception as error:  # whatever a stranger's file raises is told to the process that asked
        text = str(error).partition("\n")[0][:300]
        code = "the file holds objects, which would run code, or no weights: save model.state_dict()"
        return {"error": code if "Weights only load failed" in text else f"the weights cannot be read: {text}"}
    return {"tensors": len(tensors)}


if __name__ == "__main__":
    print(json.dumps(_main(sys.argv[1], sys.argv[2])))
