"""Tests of `engram export`: a version that PyTorch alone runs."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner, Result

from engram import Memory
from service.cli.main import app
from service.models.loaded import load
from testing.data.digits import pixels
from testing.data.models import MODEL, create
from vault.maintenance.export import export_model
from vault.settings import VaultSettings
from vault.storage.object_store import ObjectStore
from vault.vault import Vault

ALONE = """
import json, sys, torch
from pathlib import Path
from safetensors.torch import load_file, save_file
about = {"engram.json": ""}
module = torch.export.load(sys.argv[1], extra_files=about).module()
images = load_file(sys.argv[2])["images"]
found = module(images)
one = module(images[:1])
assert all(torch.allclose(one[name], values[:1], atol=1e-5) for name, values in found.items())
assert not [name for name in sys.modules if name.split(".")[0] in ("engram", "torchvision", "timm", "service")]
save_file({name: values.contiguous() for name, values in found.items()}, sys.argv[3])
Path(sys.argv[4]).write_text(about["engram.json"])
"""


def run(*words: object) -> Result:
    return CliRunner().invoke(app, ["export", *map(str, words), "--format", "torch"])


def digits() -> torch.Tensor:
    return torch.stack([torch.from_numpy(pixels(digit, index))[None] for digit in range(6) for index in range(60, 80)])


def served(store: Path) -> Memory:
    """The model as a service has it."""
    with Vault.connect(VaultSettings(store_url=str(store))) as vault:
        head = vault.log.head(MODEL)
        assert head is not None
        return load(vault, vault.models.get(MODEL), head).memory


def renamed(store: Path, to: Path) -> Path:
    """A copy of the store whose newest version shows other names."""
    shutil.copytree(store, to)
    with Vault.connect(VaultSettings(store_url=str(to))) as vault:
        head = vault.log.head(MODEL)
        assert head is not None
        names = {"low": {"name": "small", "labels": {"digit-0": "zero"}}}
        vault.log.append(MODEL, head.following("rename", names=names))
    return to


def test_it_answers_as_the_version_does_where_there_is_nothing_but_torch(learned_store: Path, tmp_path: Path) -> None:
    store = renamed(learned_store, tmp_path / "store")
    bundle, file = tmp_path / "digits.engram", tmp_path / "digits.pt2"
    export_model(ObjectStore.connect(VaultSettings(store_url=str(store))), MODEL, bundle)
    done = run(MODEL, file, "--bundle", bundle, "--json")
    assert done.exit_code == 0, done.output
    given, found, about = tmp_path / "given", tmp_path / "found", tmp_path / "about.json"
    save_file({"images": digits()}, given)
    place = sysconfig.get_paths()["purelib"]
    # -I leaves out this folder and the environment; packages installed in place are not on the path either.
    script = f"import sys; sys.path = [p for p in sys.path if 'engram' not in p] + [{place!r}]\n{ALONE}"
    subprocess.run([sys.executable, "-I", "-S", "-c", script, file, given, found, about], check=True, cwd=tmp_path)
    from safetensors.torch import load_file

    answers, document = load_file(found), json.loads(about.read_text())
    assert document == json.loads(done.stdout)
    assert (document["model"], document["version"], document["exact"]) == (MODEL, 3, False)
    assert document["measured"]["largest_logit_difference"] < 1e-4
    assert (document["tasks"][0]["name"], document["labels"][0]) == ("small", "zero")
    memory = served(store)
    for number, answer in enumerate(memory.predict(digits())):
        label = int(answers["label"][number])
        assert document["labels"][label] == answer.label
        assert document["tasks"][int(answers["task"][number])]["name"] == answer.task
        assert float(answers["probabilities"][number, label]) == pytest.approx(answer.probability, abs=1e-4)
        assert int(answers["known"][number]) == {True: 1, False: 0, None: -1}[answer.known]
        assert float(answers["novelty"][number]) == pytest.approx(answer.novelty, abs=1e-4)
    logits = torch.cat([memory.observe(digits(), info.name).logits(info.name) for info in memory.tasks], 1)
    assert torch.allclose(answers["logits"], logits, atol=1e-4)


def test_what_cannot_be_exported_is_refused(vault: Vault, learned_store: Path, tmp_path: Path) -> None:
    create(vault, "empty")
    create(vault, "other", method="rnf")
    store = vault.settings.store_url
    for words, status, text in (
        (("empty", tmp_path / "a.pt2", "--store", store), 1, "not_exportable"),
        (("other", tmp_path / "a.pt2", "--store", store), 1, "not_exportable"),
        (("none", tmp_path / "a.pt2", "--store", store), 1, "unknown_model"),
        ((MODEL, tmp_path / "a.pt2", "--store", learned_store, "--version", 9), 1, "unknown_version"),
        ((MODEL, tmp_path / "none" / "a.pt2", "--store", learned_store), 2, "no folder"),
        ((MODEL, tmp_path, "--store", learned_store), 2, "--force"),
        ((MODEL, tmp_path / "a.pt2", "--store", learned_store, "--bundle", tmp_path), 2, "not both"),
    ):
        done = run(*words)
        assert (done.exit_code, text in done.output) == (status, True), done.output
    assert list(tmp_path.glob("*.pt2")) == []
