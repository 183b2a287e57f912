"""Tests of `engram backbones` against a service."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import safetensors.torch
import torch
from typer.testing import CliRunner, Result

from engram.nn.pretrained.conversion import isolating
from service.cli.main import app
from service.settings import ServiceSettings
from testing.data.networks import ARCHITECTURE, CLASSES, SIZE, weights
from testing.data.tokens import token
from testing.servers.service import Service, running


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The weights of a small network."""
    path = tmp_path / "small.safetensors"
    path.write_bytes(weights())
    return path


def run(url: str, *words: object, **environment: str) -> Result:
    return CliRunner().invoke(app, ["backbones", *map(str, words)], env={"ENGRAM_URL": url, **environment})


def refused(result: Result, text: str) -> None:
    assert (result.exit_code, result.stdout) == (1, ""), result.output
    # Where a key is missing, a second line says from where one is taken.
    assert len(result.stderr.strip().splitlines()) == (2 if text == "(unauthorized)" else 1)
    assert text in result.stderr


def test_from_the_first_to_the_last(empty: Service, file: Path, tmp_path: Path) -> None:
    (config := tmp_path / "config.json").write_text(json.dumps({"size": SIZE}))
    (names := tmp_path / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    words = ("--architecture", ARCHITECTURE, "--config", config, "--classes", names, "--licence", "mit")
    added = run(empty.url, "add", file, "--name", "small", *words)
    assert (added.exit_code, added.stdout.split(":")[0]) == (0, "The backbone small is there"), added.output
    again = run(empty.url, "add", file, "--name", "small", *words, "--json")
    found = json.loads(again.stdout)
    assert (found["classes"], found["preprocessing"]["size"], found["licence"]) == (list(CLASSES), SIZE, "mit")
    assert found == empty.client.get("/v1/backbones/small").json()

    (classes := tmp_path / "classes.json").write_text(json.dumps(CLASSES))
    inline = ("--config", json.dumps({"size": SIZE}), "--arguments", '{"num_classes": 4}', "--classes", classes)
    assert run(empty.url, "add", file, "--name", "b", "--architecture", ARCHITECTURE, *inline).exit_code == 0
    head, first, second = run(empty.url, "list").stdout.splitlines()
    assert head.split()[:4] == ["NAME", "ARCHITECTURE", "PARAMETERS", "MIB"]
    assert (first.split()[0], first.split()[5], second.split()[0], second.split()[5]) == ("b", "-", "small", "mit")
    assert [one["name"] for one in json.loads(run(empty.url, "list", "--json").stdout)] == ["b", "small"]
    shown = run(empty.url, "show", "small").stdout
    assert ARCHITECTURE in shown
    assert shown.count("\nlevel ") == len(found["levels"])
    assert json.loads(run(empty.url, "show", "small", "--json").stdout) == found

    create = ["models", "create", "vision", "--over", "small", "--adopt", "animals", "--json"]
    made = json.loads(CliRunner().invoke(app, create, env={"ENGRAM_URL": empty.url}).stdout)
    assert (made["version"], made["backbone"], made["tasks"][0]["name"]) == (1, "adapter", "animals")
    empty.client.delete("/v1/models/vision")

    assert run(empty.url, "delete", "small").exit_code == 0
    for missing in ("show", "delete"):
        refused(run(empty.url, missing, "small"), "(unknown_backbone)")
    refused(run(empty.url, "add", file, "--name", "b", "--architecture", "torchvision/resnet81"), "(unknown_architec")


def test_a_key_out_of_the_environment_or_an_option(settings: ServiceSettings) -> None:
    with running(settings.model_copy(update={"keys": "required"})) as service:
        key = token(service.vault, "predict")
        refused(run(service.url, "list"), "(unauthorized)")
        assert run(service.url, "list", "--key", key).exit_code == 0
        assert run(service.url, "list", ENGRAM_API_KEY=key).exit_code == 0
        refused(run(service.url, "delete", "small", "--key", key), "(forbidden)")


def test_a_pickle_becomes_safetensors(tmp_path: Path) -> None:
    source, target = tmp_path / "model.pth", tmp_path / "model.safetensors"
    torch.save({"state_dict": {"module.weight": torch.ones(2)}}, source)
    isolated = () if isolating() else ("--unsafe",)
    done = run("", "convert", source, target, *isolated)
    assert (done.exit_code, done.stdout) == (0, f"Wrote 1 tensors to {target}.\n"), done.output
    assert list(safetensors.torch.load(target.read_bytes())) == ["weight"]
    assert run("", "convert", source, target, *isolated).exit_code == 2
    assert run("", "convert", tmp_path / "none", target).exit_code == 2
    source.write_bytes(pickle.dumps({"weight": print}))
    refused(run("", "convert", source, tmp_path / "other", *isolated), "(damaged_weights)")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.pth", "model.safetensors"]


def test_what_cannot_be_asked_or_read(file: Path, tmp_path: Path) -> None:
    nobody = run("http://127.0.0.1:9", "list")
    assert (nobody.exit_code, "cannot be reached" in nobody.stderr) == (3, True)
    assert run("no address", "list").exit_code == 2
    add = ("add", file, "--name", "a", "--architecture", ARCHITECTURE)
    for words in ((*add, "--config", "{"), (*add, "--config", tmp_path / "none"), (*add, "--classes", file)):
        assert run("http://127.0.0.1:9", *words).exit_code == 2
    assert run("http://127.0.0.1:9", "add", tmp_path / "none", *add[2:]).exit_code == 2
