"""Metadata, configuration and statistics, as the Open Inference Protocol tells them."""

from __future__ import annotations

from importlib.metadata import version as distribution_version
from typing import Any

import orjson

from engram.explain.render import SHORTEST_SIDE
from engram.memory import Memory
from service.middleware.model_statistics import ModelStatistics
from service.models.loaded import LoadedVersion
from service.protocol import tensors
from service.protocol.tensors import DATATYPES, HEATMAP, IMAGE, PIXELS, PROBABILITIES
from vault.classes.class_index import ClassIndex

PLATFORM = "engram"
EXTENSIONS = ("binary_tensor_data", "classification", "model_configuration", "statistics")
_TYPES = {"BYTES": "TYPE_STRING", "UINT8": "TYPE_UINT8", "FP32": "TYPE_FP32", "BOOL": "TYPE_BOOL"}
"""What a configuration calls the datatypes."""


def server() -> dict[str, Any]:
    """What this server is."""
    return {"name": "engram", "version": distribution_version("engram-vision"), "extensions": list(EXTENSIONS)}


def model(loaded: LoadedVersion, versions: list[int], index: ClassIndex) -> dict[str, Any]:
    """The inputs and outputs of a version, with its classes: null is a number whose class is gone."""
    outputs: list[dict[str, Any]] = [
        {"name": name, "datatype": DATATYPES[name], "shape": shape}
        for name, shape in _output_shapes(loaded.memory, index).items()
    ]
    for output in outputs:
        if output["name"] == PROBABILITIES:
            output["parameters"] = {"classes": classes(index)}
    return {
        "name": loaded.name,
        "versions": [str(version) for version in versions],
        "platform": PLATFORM,
        "inputs": [
            {"name": name, "datatype": datatype, "shape": shape}
            for name, (datatype, shape) in _inputs(loaded.memory).items()
        ],
        "outputs": outputs,
    }


def classes(index: ClassIndex) -> list[dict[str, str] | None]:
    """Task and label of each number; None where the version does not have the class any more."""
    served = set(index.served)
    return [
        {"task": task, "label": label} if number in served else None
        for number, (task, label) in enumerate(index.classes)
    ]


def config(loaded: LoadedVersion, index: ClassIndex) -> dict[str, Any]:
    """The same as Triton's clients read it; every request brings its own number of images in the first dimension."""
    return {
        "name": loaded.name,
        "platform": PLATFORM,
        "backend": "engram",
        "max_batch_size": 0,
        "input": [
            {"name": name, "data_type": _TYPES[datatype], "dims": shape, "optional": True}
            for name, (datatype, shape) in _inputs(loaded.memory).items()
        ],
        "output": [
            {"name": name, "data_type": _TYPES[DATATYPES[name]], "dims": shape}
            for name, shape in _output_shapes(loaded.memory, index).items()
        ],
        # The one place where a client of gRPC finds them.
        "parameters": {"classes": {"string_value": orjson.dumps(classes(index)).decode()}},
    }


def statistics(loaded: LoadedVersion, all_versions: ModelStatistics) -> dict[str, Any]:
    """What was asked of a version by this protocol, of this process."""
    counted, none = all_versions.of(loaded.model.lineage, loaded.name, loaded.version), {"count": 0, "ns": 0}
    return {
        "name": loaded.name,
        "version": str(loaded.version),
        "last_inference": counted.last_ms,
        "inference_count": counted.images,
        "execution_count": counted.answered,
        "inference_stats": {
            "success": {"count": counted.answered, "ns": counted.answered_ns},
            "fail": {"count": counted.failed, "ns": counted.failed_ns},
            **dict.fromkeys(("queue", "compute_input", "compute_infer", "compute_output"), none),
            **dict.fromkeys(("cache_hit", "cache_miss"), none),
        },
        "batch_stats": [],
    }


def _inputs(memory: Memory) -> dict[str, tuple[str, list[int]]]:
    shape = memory.definition.input
    return {IMAGE: ("BYTES", [-1]), PIXELS: ("UINT8", [-1, shape.height, shape.width, shape.channels])}


def _output_shapes(memory: Memory, index: ClassIndex) -> dict[str, list[int]]:
    shape = memory.definition.input
    factor = max(1, -(-SHORTEST_SIDE // min(shape.height, shape.width)))
    found = {name: [-1] for name in tensors.DATATYPES}
    found[PROBABILITIES] = [-1, len(index)]
    found[HEATMAP] = [-1, shape.height * factor, shape.width * factor, 3]
    return found
