"""Pretrained commons that keep on disk what they saw, for all seeds and variants of a benchmark."""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engram import Memory
from engram.methods.eidetic.staged.method import StagedEidetic
from engram.nn.commons import Commons
from engram.nn.commons.base import Look
from engram.nn.commons.joined_commons import JoinedCommons
from engram.nn.commons.pretrained_commons import STEP, PretrainedCommons

FOLDER = Path.home() / ".cache" / "engram-benchmarks" / "seen"

DIGEST = 16
"""Bytes of the hash that an image is found by."""


class SeenImages:
    """What one network saw of images, found by a hash of their pixels; safe for several processes.

    The file `index` holds the hashes. It is written last, so that a row is there when its hash is.

    Parameters
    ----------
    folder
        Made where it is missing.
    features
        Features of an image, whole numbers of 16 bits.
    maps
        Channels, height and width of its maps, bytes.
    """

    def __init__(self, folder: Path, features: int, maps: tuple[int, int, int]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._features, self._maps = folder, features, maps
        self._rows: dict[bytes, int] = {}
        for name in ("index", "features", "maps"):
            (folder / name).touch()

    def rows(self, images: Tensor) -> tuple[list[bytes], list[int]]:
        """Hashes of images (B, C, H, W) uint8, and their rows; -1 for those that are not there."""
        hashes = [hashlib.sha256(image.numpy().tobytes()).digest()[:DIGEST] for image in images]
        if any(one not in self._rows for one in hashes):
            self._read_index()
        return hashes, [self._rows.get(one, -1) for one in hashes]

    def read(self, rows: list[int], *, maps: bool) -> tuple[Tensor, Tensor | None]:
        """Features (B, F) int16 and maps (B, channels, side, side) uint8 of rows."""
        count = len(self._rows)
        features: NDArray[np.int16] = np.memmap(self._folder / "features", np.int16, "r", shape=(count, self._features))
        found = torch.from_numpy(features[rows])
        if not maps:
            return found, None
        drawn: NDArray[np.uint8] = np.memmap(self._folder / "maps", np.uint8, "r", shape=(count, *self._maps))
        return found, torch.from_numpy(drawn[rows])

    def append(self, hashes: list[bytes], features: Tensor, maps: Tensor) -> None:
        """Keep what was seen of images (B,), of which others may have been written in the meantime."""
        with self._locked():
            self._read_index()
            new = [number for number, one in enumerate(hashes) if one not in self._rows]
            new = [number for number in new if hashes.index(hashes[number]) == number]
            for name, values in (("features", features), ("maps", maps)):
                width = values[0].numel() * values.element_size()
                with (self._folder / name).open("r+b") as file:
                    file.seek(len(self._rows) * width)  # over what a killed process left
                    file.write(values[new].contiguous().numpy().tobytes())
            with (self._folder / "index").open("ab") as file:
                file.write(b"".join(hashes[number] for number in new))
            self._read_index()

    def _read_index(self) -> None:
        given = (self._folder / "index").read_bytes()
        for start in range(len(self._rows) * DIGEST, len(given) - DIGEST + 1, DIGEST):
            self._rows[given[start : start + DIGEST]] = start // DIGEST

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with (self._folder / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


opened = cache(SeenImages)
"""One of each in this process."""


class RememberingCommons(PretrainedCommons):
    """Pretrained commons whose features and maps are those of the product, computed once for each image."""

    folder: Path = FOLDER

    @classmethod
    def of(cls, commons: PretrainedCommons, folder: Path) -> Self:
        """The same commons, with a folder for what they see."""
        found = cls(commons.description, commons.readings, commons.weights, adapters=commons.maps is not None)
        found.load_state_dict(commons.state_dict())
        found.folder = folder
        return found.eval()

    def _images(self) -> SeenImages:
        about = {"network": self.description.stored(), "readings": self.readings.to_row(), "step": STEP}
        name = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
        for _, values in sorted(self.state_dict().items()):
            name.update(values.cpu().numpy().tobytes())
        side = self.readings.side
        return opened(self.folder / name.hexdigest()[:16], self.features, (self.readings.channels, side, side))

    def _remembered(self, images: Tensor, *, maps: bool) -> tuple[Tensor, Tensor | None]:
        """Features (B, F) float32 and, where asked for, maps (B, channels, side, side) uint8."""
        seen, images = self._images(), images.cpu()
        hashes, rows = seen.rows(images)
        missing = [number for number, row in enumerate(rows) if row < 0]
        if missing:
            each = [self._seen(images[number : number + 1], maps=True) for number in missing]
            features = (torch.cat([one.features for one in each]).cpu() / STEP).round().to(torch.int16)
            seen.append([hashes[number] for number in missing], features, torch.cat([one.maps for one in each]).cpu())
            _, rows = seen.rows(images)
        found, drawn = seen.read(rows, maps=maps)
        return found.to(self.device, torch.float32).mul_(STEP), None if drawn is None else drawn.to(self.device)

    @torch.no_grad()
    def of_bytes(self, images: Tensor) -> Tensor:
        return self._remembered(images, maps=False)[0]

    @torch.no_grad()
    def mapped(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features, maps = self._remembered(images, maps=True)
        return features, cast(Tensor, maps)

    @torch.no_grad()
    def look(self, images: Tensor) -> Look:
        features, maps = self._remembered(images, maps=self.maps is not None)
        return Look((images if maps is None else maps).to(torch.float32) / 255.0, features.cpu())


def remembering(memory: Memory, folder: Path) -> Memory:
    """The memory, whose pretrained commons keep what they see under a folder; any other as it is."""
    method = memory.method
    if isinstance(method, StagedEidetic) and method.definition.pretrained:
        method.commons = _remembering(method.commons, folder)
        method.to(method.device)  # whose served form is made anew
    return memory


def _remembering(commons: Commons, folder: Path) -> Commons:
    if isinstance(commons, JoinedCommons):
        return JoinedCommons([_remembering(part, folder) for part in commons.each()], commons.regressions).eval()
    return RememberingCommons.of(commons, folder) if isinstance(commons, PretrainedCommons) else commons
