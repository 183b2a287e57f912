"""Tests of networks that are adopted over HTTP: answers as plain PyTorch gives them."""

from __future__ import annotations

import io
import json
from functools import partial

import numpy
import safetensors.torch
import torch
from PIL import Image

from engram.nn.pretrained.architectures import architecture
from testing.data.networks import ARCHITECTURE, CLASSES, SIZE, weights
from testing.servers.service import Service

MEAN, STD = ([[[value]] for value in values] for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))


def plain(image: torch.Tensor) -> torch.Tensor:
    """(4,): what PyTorch alone makes of pixels (3, H, W) uint8."""
    with torch.random.fork_rng():
        network = architecture(ARCHITECTURE).build({"num_classes": len(CLASSES)}).eval()
    network.load_state_dict(safetensors.torch.load(weights()))
    with torch.no_grad():
        given = (image[None].float() / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
        logits: torch.Tensor = network(given)[0]
    return logits


PNG = {"Content-Type": "image/png"}


def png(image: torch.Tensor) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(numpy.asarray(image.permute(1, 2, 0))).save(buffer, "PNG")
    return buffer.getvalue()


def test_version_1_answers_what_the_network_answers(empty: Service) -> None:
    form = {"name": "small", "architecture": ARCHITECTURE, "config": json.dumps({"size": SIZE})}
    files = {"weights": ("weights.safetensors", weights())}
    unnamed = empty.client.post("/v1/backbones", data=form, files=files)
    assert unnamed.status_code == 201
    body = {"name": "lines", "commons": {"kind": "pretrained", "backbone": "small"}, "adopt": "animals"}
    refused = empty.client.post("/v1/models", json=body)
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_definition")
    assert empty.client.get("/v1/models/lines").status_code == 404
    assert empty.client.delete("/v1/backbones/small").status_code == 204
    assert empty.client.post("/v1/backbones", data=form | {"classes": json.dumps(CLASSES)}, files=files).is_success

    made = empty.client.post("/v1/models", json=body)
    assert (made.status_code, made.json()["version"]) == (201, 1)
    assert made.json()["tasks"] == [{"name": "animals", "classes": list(CLASSES)}]
    assert made.json()["input"] == {
        "channels": 3,
        "height": SIZE,
        "width": SIZE,
        "convert": False,
        "background": None,
        "fit": "crop",
        "crop": 0.875,
        "interpolation": "bilinear",
    }
    again = empty.client.post("/v1/models", json=body)
    assert (again.status_code, again.json()["version"]) == (200, 1)
    other = empty.client.post("/v1/models", json=body | {"adopt": "beasts"})
    assert (other.status_code, other.json()["code"]) == (409, "model_exists")
    image = torch.randint(0, 256, (3, SIZE, SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(4))
    query = {"task": "animals", "logits": "true"}
    ask = partial(empty.client.post, "/v1/models/lines/predict", content=png(image), headers=PNG)
    answer = ask(params=query).json()["predictions"][0]
    assert torch.equal(torch.tensor(answer["logits"]), plain(image))
    answer = ask().json()["predictions"][0]
    logits = plain(image)  # of random weights, hardly apart
    nearly = [name for name, logit in zip(CLASSES, logits.tolist(), strict=True) if logit > float(logits.max()) - 1e-6]
    assert answer["label"] in nearly
    assert (answer["known"], answer["calibrated"]) == (None, False)
    certificate = empty.client.get("/v1/models/lines/versions/1/certificate").json()
    assert [one["task"] for one in certificate["tasks"]] == ["animals"]
    drawn = empty.client.post(
        "/v1/models/lines/explain", params={"format": "json"}, content=png(image), headers=PNG
    ).json()
    assert drawn["composite"] == empty.client.get("/v1/backbones/small").json()["heatmaps"]["default"]


def test_a_network_behind_filters_is_adopted_as_well(empty: Service) -> None:
    form = {"name": "small", "architecture": ARCHITECTURE, "config": json.dumps({"size": SIZE})}
    files = {"weights": ("weights.safetensors", weights())}
    stored = empty.client.post("/v1/backbones", data=form | {"classes": json.dumps(CLASSES)}, files=files)
    assert stored.status_code == 201
    filters = {"kind": "learned", "features": 64, "dictionary": "dead_leaves"}
    parts = [filters, {"kind": "pretrained", "backbone": "small"}]
    body = {"name": "both", "commons": parts, "backbone": "none", "adopt": "animals"}
    made = empty.client.post("/v1/models", json=body)
    assert (made.status_code, made.json()["version"]) == (201, 1), made.text
    image = torch.randint(0, 256, (3, SIZE, SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(4))
    asked = {"task": "animals", "logits": "true"}
    answer = empty.client.post("/v1/models/both/predict", content=png(image), headers=PNG, params=asked)
    assert torch.equal(torch.tensor(answer.json()["predictions"][0]["logits"]), plain(image))
