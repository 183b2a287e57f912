"""Export of one version as a file of `torch.export`, which PyTorch alone loads and runs."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import torch
from torch import Tensor

from engram.methods.base import Method

ABOUT = "engram.json"
"""The extra file in an exported one that says what it is."""

FORMAT = 1

MOST_IMAGES = 1024
"""Images of a batch that an exported module takes at most."""


def export_torch(method: Method, probes: Tensor, path: Path, about: Mapping[str, Any]) -> dict[str, Any]:
    """Write what a version answers with into a `.pt2` file, with a document that says what it is, and give that.

    It is not byte-exact: kernels, and the number of images that are computed together, are not those of a service.
    How far its answers are from the version's is measured and is in the document.

    Parameters
    ----------
    probes
        (N, C, H, W) uint8: the images that it is measured on, such as the probe batch of certificates.
    about
        What else the document is to say, such as the version's number.

    Raises
    ------
    NotExportable
    OSError
        The file cannot be written; one that was there stays as it was.
    """
    method = method.current()
    module, meaning = method.plain()
    batch = torch.export.Dim("batch", min=1, max=MOST_IMAGES)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of PyTorch about its own insides
        program = torch.export.export(module.eval(), (probes[:3],), dynamic_shapes=({0: batch},))
        found: Mapping[str, Tensor] = program.module()(probes)
        shape = method.definition.input
        document = {
            **about,
            "format": FORMAT,
            "exact": False,
            "torch": torch.__version__,
            "input": {"channels": shape.channels, "height": shape.height, "width": shape.width, "dtype": "uint8"},
            **meaning,
            "measured": _measured(method, probes, found, meaning),
        }
        with NamedTemporaryFile(dir=path.parent, prefix=".", suffix=".pt2", delete=False) as file:
            try:
                torch.export.save(program, file.name, extra_files={ABOUT: json.dumps(document)})
                os.replace(file.name, path)
            except BaseException:
                os.unlink(file.name)
                raise
    return document


def _measured(
    method: Method, probes: Tensor, found: Mapping[str, Tensor], meaning: Mapping[str, Any]
) -> dict[str, object]:
    """How far answers to the probes are from the version's own."""
    logits = torch.cat([method.observe_for(probes, info.name, None).logits(info.name) for info in method.tasks], 1)
    answers = method.observe_for(probes, None, None).predictions()
    labels = [meaning["labels"][label] for label in found["label"].tolist()]
    told = found["probabilities"].gather(1, found["label"][:, None])[:, 0].tolist()
    shifted = [abs(one - answer.probability) for one, answer in zip(told, answers, strict=True)]
    return {
        "images": len(probes),
        "largest_logit_difference": float((found["logits"] - logits).abs().max()),
        "largest_logit": float(logits.abs().max()),
        "largest_probability_difference": max(shifted),
        "other_labels": sum(label != answer.label for label, answer in zip(labels, answers, strict=True)),
    }
