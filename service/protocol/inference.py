"""Answers to requests of the Open Inference Protocol, the way that `/predict` takes."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import numpy
import torch
from anyio import to_thread
from numpy.typing import NDArray
from starlette.requests import Request
from torch import Tensor

from engram.config.input_shape import InputShape
from service.dependencies import Runtime
from service.errors.exceptions import InvalidRequest
from service.errors.problem_details import status_of
from service.models.batching import InferenceReply, InferenceRequest
from service.models.heatmaps import PIXELS
from service.models.loaded import LoadedVersion
from service.protocol.requests import Infer, RequestedOutput
from service.protocol.tensors import DATATYPES, HEATMAP, KNOWN, KNOWN_JUDGED, PROBABILITIES, OutputTensor
from telemetry import logs
from vault.classes.class_index import ClassIndex

_LONGEST_VERSION = 8
"""Digits."""


class RefusedImage(Exception):
    """One image of several that cannot be answered, for which the protocol has no place in an answer."""

    def __init__(self, number: int, cause: Exception) -> None:
        super().__init__(str(cause))
        self.number = number
        self.cause = cause


@dataclass(slots=True)
class Inferred:
    """An answer: which version gave it, and its outputs as they were asked for, in that order."""

    model: str
    version: int
    id: str | None
    wanted: tuple[RequestedOutput, ...]
    outputs: list[OutputTensor]


Reader = Callable[[InputShape], Awaitable[Infer]]
"""Reads a request, given the shape of the model's images."""


def number_of(version: str) -> int | None:
    """The number of a version as the protocol writes it, and None for the one that answers; raises InvalidRequest."""
    if not version:
        return None
    if not (version.isascii() and version.isdecimal()) or len(version) > _LONGEST_VERSION:
        raise InvalidRequest("A version is a whole number.")
    return int(version)


async def loaded_version(parts: Runtime, model: str, version: int | None) -> LoadedVersion:
    """A version that can answer, loaded where it is not; raises as `LiveModels.get_version`."""
    return await (parts.live.get(model) if version is None else parts.live.get_version(model, version))


async def answered(parts: Runtime, request: Request, model: str, version: int | None, read: Reader) -> Inferred:
    """The answer to a request.

    Parameters
    ----------
    request
        Whose key and connection it is.

    Raises
    ------
    RefusedImage
        One of several images is none that can be read or explained.
    Exception
        All that `/predict` is refused with.
    """
    began = time.perf_counter_ns()
    loaded = await loaded_version(parts, model, version)
    try:
        asked = await read(loaded.memory.definition.input)
        reply, heatmaps = await _asked(parts, request, loaded, asked, version)
        index = await _index(parts, loaded, reply.version) if asked.wants(PROBABILITIES) else None
        outputs = _outputs(asked, reply, index, heatmaps)
    except Exception:
        parts.statistics.add_failed(loaded.model.lineage, model, loaded.version, time.perf_counter_ns() - began)
        raise
    logs.bind(version=reply.version)
    parts.statistics.add(loaded.model.lineage, model, reply.version, len(asked), time.perf_counter_ns() - began)
    return Inferred(model, reply.version, asked.id, asked.outputs, outputs)


async def _asked(
    parts: Runtime, request: Request, loaded: LoadedVersion, asked: Infer, version: int | None
) -> tuple[InferenceReply, NDArray[numpy.uint8] | None]:
    """The reply to what is asked, and the heatmaps (N, H', W', 3) where they are."""
    heatmaps = parts.inference.heatmaps
    if explained := asked.wants(HEATMAP):
        heatmaps.bound(len(asked))
    await parts.quotas.count_images(request, len(asked))
    images = asked.pixels if asked.pixels is not None else await _decoded(parts, request, loaded, asked)
    about = asked.parameters
    batch = InferenceRequest(
        images,
        about.task,
        about.top_k,
        False,
        loaded,
        about.contenders,
        asked.wants(PROBABILITIES),
    )
    if not explained:
        return await parts.inference.predict(loaded.name, batch, version), None
    with heatmaps.held(len(images)):
        reply = await parts.inference.predict(loaded.name, batch, version)
        if reply.version != loaded.version:  # another has gone live since the images were decoded
            loaded = await parts.live.get_version(loaded.name, reply.version)
        drawn = await heatmaps.explain_answers(loaded.memory, list(images), reply.answers, about.task, PIXELS)
    found = []
    for number, one in enumerate(drawn):
        if isinstance(one, Exception):
            raise RefusedImage(number, one)
        assert one.pixels is not None, "it was drawn as pixels"
        found.append(one.pixels.numpy())
    return reply, numpy.stack(found)


async def _decoded(parts: Runtime, request: Request, loaded: LoadedVersion, asked: Infer) -> Tensor:
    """(N, C, H, W) uint8; raises RefusedImage."""
    definition = loaded.memory.definition
    decoded = await parts.decoder.decode(
        asked.sources, definition.input, definition.decoder, gone=request.is_disconnected
    )
    good = []
    for number, image in enumerate(decoded):
        if isinstance(image, Exception):
            raise RefusedImage(number, image) if (status_of(image) or 500) < 500 else image
        good.append(image)
    return torch.stack(good) if len(good) > 1 else good[0][None]


async def _index(parts: Runtime, loaded: LoadedVersion, version: int) -> ClassIndex:
    """The class index of a version, which the store is asked for once."""
    known = parts.vault.classes.known(loaded.model.lineage, version)
    return known if known is not None else await to_thread.run_sync(parts.vault.classes.of, loaded.name, version)


def _outputs(
    asked: Infer, reply: InferenceReply, index: ClassIndex | None, heatmaps: NDArray[numpy.uint8] | None
) -> list[OutputTensor]:
    answers, top_k = reply.answers, asked.parameters.top_k
    shape, found = (len(answers),), list[OutputTensor]()
    tops = None if top_k == 1 else [answer.top for answer in answers]
    for wanted in asked.outputs:
        name = wanted.name
        if name in _READ and (tops is None or name not in _OF_CANDIDATE):
            found.append(OutputTensor(name, DATATYPES[name], shape, list(map(_READ[name], answers))))
        elif tops is not None and name in _OF_CANDIDATE:
            elements = [_READ[name](one) for top in tops for one in top]
            found.append(OutputTensor(name, DATATYPES[name], (*shape, len(tops[0])), elements))
        elif name == PROBABILITIES:
            assert index is not None, "it is looked up where it is needed"
            found.append(_probabilities(wanted, asked, reply, index))
        else:
            assert heatmaps is not None, "heatmaps are made where they are asked for"
            found.append(OutputTensor(name, DATATYPES[name], heatmaps.shape, heatmaps))
    return found


_READ: dict[str, Callable[[Any], Any]] = {
    **{name: attrgetter(name) for name in ("label", "task", "probability", "task_probability", "novelty")},
    KNOWN: lambda answer: answer.known is True,
    KNOWN_JUDGED: lambda answer: answer.known is not None,
}
"""What each output is of a prediction."""
_OF_CANDIDATE = frozenset({"label", "task", "probability"})
"""Those that each of the best labels has."""


def _probabilities(wanted: RequestedOutput, asked: Infer, reply: InferenceReply, index: ClassIndex) -> OutputTensor:
    told, task = reply.probabilities, asked.parameters.task
    assert told is not None, "they are asked for with the request"
    numbers = index.served if task is None else index.of_task(task)
    assert told.shape[1] == len(numbers), "a version answers for the classes that its record names"
    if wanted.classification:
        return _classified(told, numbers, index, wanted.classification)
    every = told if task is None and index.dense else _spread(told, numbers, len(index))
    return OutputTensor(PROBABILITIES, DATATYPES[PROBABILITIES], every.shape, every)


def _spread(told: NDArray[numpy.float32], numbers: Sequence[int], count: int) -> NDArray[numpy.float32]:
    """(N, C): probabilities at the numbers of their classes, and 0 for those that are not in question."""
    spread = numpy.zeros((len(told), count), numpy.float32)
    spread[:, list(numbers)] = told
    return spread


def _classified(told: NDArray[numpy.float32], numbers: Sequence[int], index: ClassIndex, most: int) -> OutputTensor:
    """The largest probabilities of each image, the largest first, as `value:index:label`."""
    count = min(most, len(numbers))
    best = numpy.argsort(-told, axis=1, kind="stable")[:, :count]
    rows = [
        f"{row[place]:f}:{numbers[place]}:{index.classes[numbers[place]][1]}"
        for row, places in zip(told, best.tolist(), strict=True)
        for place in places
    ]
    return OutputTensor(PROBABILITIES, "BYTES", (len(told), count), rows)
