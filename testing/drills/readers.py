"""Fuzz targets: everything that parses untrusted bytes, with valid inputs as seeds."""

from __future__ import annotations

import hashlib
import io
import json
import random
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy
from PIL import Image

from engram.checkpointing.pieces import bytes_of
from engram.config.definition import Definition, InputShape
from engram.config.options import LearnOptions
from engram.data import archives, images
from engram.data.containers import ArchiveLimits
from engram.data.cost.measure import measure
from engram.data.cost.tally import Cost
from engram.data.examples import Examples
from engram.data.formats import HEAD, image_format
from engram.data.image_limits import ImageLimits
from engram.errors import EngramError
from engram.memory import Memory, dump
from engram.nn.backbones import layout_of
from engram.nn.serialization import load_commons, load_engram
from engram.recognition.staged.exact_sums import ExactSums
from engram.recognition.staged.profile import StagedProfile
from engram.recognition.staged.recogniser import StagedRecogniser
from engram.recognition.staged.totals import Totals
from engram.snapshot import MANIFEST, Parts
from testing.data import costly
from testing.data.digits import QUICK, SMALL_MODEL, archive, png
from testing.data.models import examples
from vault.commit_log import Commit, CommitLog
from vault.errors import VaultError
from vault.keys import Keys
from vault.maintenance.bundle import BundleReader, BundleWriter
from vault.models import Models
from vault.storage.documents import seal
from vault.storage.local import LocalBackend
from vault.storage.object_store import ObjectStore

SHAPE = InputShape(channels=1, height=8, width=8, convert=True)
ARCHIVE_LIMITS = ArchiveLimits(
    max_entries=200, max_total_bytes=2**20, max_entry_bytes=2**18, ratio_from_bytes=2**12, max_decoded_bytes=2**20
)
IMAGE_LIMITS = ImageLimits(max_pixels=2**16, max_bytes=2**18, max_scans=100, max_parts=1000)
LONGEST = 2**17
"""Maximum length of an input in bytes."""

Feed = Callable[[bytes], None]


@dataclass(frozen=True)
class Reader:
    """One fuzz target: it returns or raises one of our own errors; any other exception is a fault."""

    feed: Feed
    seeds: tuple[bytes, ...]
    cost: Callable[[bytes], Cost] | None = None
    """Estimates what feeding an input takes; raises one of our own errors where it is refused for that."""

    def estimate(self, data: bytes) -> Cost:
        """What feeding an input was estimated to take: nothing where it is refused, which takes next to nothing."""
        try:
            return self.cost(data) if self.cost is not None else Cost(0.0, 0)
        except EngramError:
            return Cost(0.0, 0)

    def accepts(self, data: bytes) -> bool:
        """Whether the input is accepted; raises exceptions that are none of our own."""
        try:
            self.feed(data)
        except (EngramError, VaultError):
            return False
        return True


def archive_reader(folder: Path) -> Reader:
    """Target for uploads: inspected as on arrival, then read as by a worker."""
    path = folder / "archive"

    def feed(data: bytes) -> None:
        path.write_bytes(data)
        archives.inspect(path, ARCHIVE_LIMITS)
        archives.probe(path, SHAPE, ARCHIVE_LIMITS, IMAGE_LIMITS)
        archives.read(path, SHAPE, ARCHIVE_LIMITS, 0.5, image_limits=IMAGE_LIMITS)

    tars = [_tar(mode) for mode in ("w", "w:gz", "w:bz2", "w:xz")]
    joined = [one + _tar(mode, (2, 3)) for mode, one in zip(("w", "w:gz", "w:bz2", "w:xz"), tars, strict=True)]
    zips = [_packed_zip(), _packed_zip(zipfile.ZIP_BZIP2), _untold_zip()]
    return Reader(feed, (archive((0, 1), 2), *tars, *zips, *joined))


def _tar(mode: str, digits: tuple[int, ...] = (0, 1)) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as packed:  # type: ignore[call-overload]  # one of the modes for writing
        for digit in digits:
            for number in range(2):
                data = png(digit, number)
                info = tarfile.TarInfo(f"train/{digit}/{number}.png")
                info.size = len(data)
                packed.addfile(info, io.BytesIO(data))
    return file.getvalue()


def _packed_zip(method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as packed:
        for digit in (0, 1):
            for number in range(2):
                # Said once more, since an entry without the current time has a method of its own.
                packed.writestr(zipfile.ZipInfo(f"top/{digit}/{number}.png"), png(digit, number), method)
    return file.getvalue()


def _untold_zip() -> bytes:
    """Images without suffixes, folders in UTF-8 that is not flagged, notes, junk, and a blank image."""
    blank = io.BytesIO()
    Image.new("L", (64, 64)).save(blank, "BMP")
    files = {f"\u00e4{digit}/{number}": png(digit, number) for digit in (0, 1) for number in range(2)}
    files |= {"\u00e40/notes": b"text", "\u00e40/Icon\r": b"", "labels.csv": b"a,b", "\u00e41/blank": blank.getvalue()}
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, data in files.items():
            packed.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    found = bytearray(file.getvalue())
    for mark, flags in ((b"PK\3\4", 7), (b"PK\1\2", 9)):
        at = -1
        while (at := found.find(mark, at + 1)) >= 0:
            found[at + flags] &= ~0x08  # of the two bytes of flags, the one that says UTF-8
    return bytes(found)


def image_reader(folder: Path) -> Reader:
    """Target for the images of requests."""
    noise = numpy.random.default_rng(0).integers(0, 256, (16, 12, 3), dtype=numpy.uint8)
    pictures = [Image.fromarray(noise), Image.fromarray(noise[:, :, 0]), Image.fromarray(noise).quantize(16)]
    seeds = []
    for kind in ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "AVIF"):
        for picture in pictures:
            file = io.BytesIO()
            with suppress(OSError, KeyError):  # not every format writes every mode, nor every Pillow AVIF
                picture.save(file, kind)
                seeds.append(file.getvalue())

    def feed(data: bytes) -> None:
        with suppress(EngramError):
            images.decode(data, SHAPE, IMAGE_LIMITS, decoder=1)
        # Pillow keeps some KB of every AVIF whose header is damaged. Service and worker decode AVIFs in processes that
        # are replaced after a thousand images; here they would fill the memory of the one process.
        if image_format(data[:HEAD]) != "AVIF" or data in seeds:
            images.decode(data, SHAPE, IMAGE_LIMITS, decoder=2)

    seeds.extend(_costly_seeds())
    return Reader(feed, tuple(seeds), lambda data: measure(data, SHAPE, IMAGE_LIMITS))


def _costly_seeds() -> list[bytes]:
    """Small images of many parts, from which a fuzzer comes to those that are slow."""
    text = costly.png_chunk(b"zTXt", b"\0\0" + zlib.compress(bytes(2**16)))
    return [
        costly.jpeg_of_scans(12, 32),
        costly.jpeg_with(b"\xff\xfe\0\3x" * 8 + b"\xff\xe1\0\x1eExif\0\0II*\0\x08" + bytes(17)),
        costly.png_with(text * 3 + costly.png_chunk(b"IDAT") * 4),
        costly.gif_with(b"!\xfe\1x\1y\0" * 8),
        costly.tiff_of_strips(24, zlib.compress(bytes(16))),
        costly.tiff_of_strips(24, zlib.compress(bytes(16)), big=True),
        costly.tiff_of_tiles(3, 32),
        costly.bmp_of_runs(32, 32, b"\1\5\0\0" * 31 + b"\x20\7\0\1"),
    ]


class _StoredModel:
    """A model in every form in which it is stored."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.definition = Definition.model_validate(SMALL_MODEL)
        self.layout = layout_of(self.definition)
        self.objects = ObjectStore(LocalBackend(folder / "store"))
        self.models = Models(self.objects)
        self.log = CommitLog(self.objects, self.models)
        self.keys = Keys(self.objects)
        model = self.models.create("sound", self.definition.model_dump(mode="json"))
        self.log.append("sound", Commit.first(model, engrams=[], recogniser=None, budget={}))
        self._lineage = model.lineage
        self._key = self.keys.create("sound", "predict")[0].id

    @cached_property
    def parts(self) -> Parts:
        memory = Memory.create(self.definition)
        given: Examples = examples((0, 1))
        memory.learn("zero-one", given, LearnOptions.model_validate(QUICK))
        memory.save(self.folder / "snapshot")
        return dump(memory)

    def record(self, path: str) -> Path:
        """File of an object."""
        return self.folder / "store" / path

    @property
    def records(self) -> tuple[Path, ...]:
        """Files of a model, a commit and a key."""
        names = ("models/sound/model.json", f"models/sound/log/{self._lineage}/00000000.json")
        return tuple(self.record(name) for name in (*names, f"keys/{self._key}/key.json"))

    def read_records(self) -> None:
        """Read all records as services do, up to the first error."""
        Models(self.objects).get("sound")
        CommitLog(self.objects, Models(self.objects)).read("sound", 0)
        self.keys.get(self._key)


def manifest_reader(folder: Path) -> Reader:
    """Target for stored files that name others: tensors with headers, snapshot manifests, records, bundles.

    The first byte of an input chooses the parser.
    """
    stored = _StoredModel(folder)
    parts = stored.parts
    manifest, bundle = folder / "snapshot" / MANIFEST, folder / "bundle"
    sound = {path: path.read_bytes() for path in stored.records}

    def snapshots(data: bytes) -> None:
        manifest.write_bytes(data)
        Memory.load(folder / "snapshot")

    def bundles(data: bytes) -> None:
        bundle.write_bytes(data)
        with BundleReader(bundle) as reader:
            reader.verify()
            for name in reader.members:
                reader.read(name)

    def record(path: Path) -> Feed:
        def feed(data: bytes) -> None:
            path.write_bytes(data)
            try:
                stored.read_records()
            finally:
                path.write_bytes(sound[path])

        return feed

    def unsealed(path: Path) -> bytes:
        document = json.loads(sound[path])
        del document["seal"]
        return json.dumps(document).encode()

    kinds: list[tuple[Feed, list[bytes]]] = [
        (lambda data: _ignore(load_commons(stored.definition, data)), [bytes_of(parts.engrams[0])]),
        (lambda data: _ignore(load_engram(stored.layout, data)), [bytes_of(parts.engrams[1])]),
        (lambda data: _ignore(StagedRecogniser.load(data)), [parts.recogniser]),
        (lambda data: _ignore(StagedProfile.load(data)), [bytes_of(parts.engrams[2])]),
        (lambda data: _ignore(Totals.load(data)), [bytes_of(parts.kept[0])]),
        (lambda data: _ignore(ExactSums.load(data)), [bytes_of(parts.kept[1])]),
        (snapshots, [manifest.read_bytes()]),
        *((record(path), [sound[path], unsealed(path)]) for path in stored.records),
        (bundles, [_bundle(bytes_of(parts.engrams[1]))]),
    ]

    def feed(data: bytes) -> None:
        if data:
            kinds[data[0] % len(kinds)][0](data[1:])

    seeds = (bytes([number]) + seed for number, (_, found) in enumerate(kinds) for seed in found)
    return Reader(feed, tuple(seed for seed in seeds if len(seed) <= LONGEST))


def _ignore(what: object) -> None: ...


def _bundle(blob: bytes) -> bytes:
    record = seal({"definition": {}, "format_version": 1, "created_at": ""})
    members = {"model.json": record, f"blobs/{hashlib.sha256(blob).hexdigest()}": blob}
    file = io.BytesIO()
    listed = {name: (len(data), hashlib.sha256(data).hexdigest()) for name, data in members.items()}
    writer = BundleWriter(file, "sound", listed)
    for name, data in members.items():
        writer.add(name, data)
    writer.close()
    return file.getvalue()


READERS: dict[str, Callable[[Path], Reader]] = {
    "archive": archive_reader,
    "image": image_reader,
    "manifest": manifest_reader,
}


def mutated(seed: bytes, chance: random.Random) -> bytes:
    """A seed with a few mutations: bits, bytes, extreme values, pieces removed or duplicated."""
    data = bytearray(seed)
    for _ in range(chance.choice((1, 1, 1, 2, 4, 16))):
        at = chance.randrange(len(data) + 1)
        length = chance.choice((1, 2, 4, 8, 64))
        match chance.randrange(6):
            case 0 if at < len(data):
                data[at] ^= 1 << chance.randrange(8)
            case 1:
                data[at : at + length] = chance.randbytes(length)
            case 2:
                data[at : at + length] = chance.choice((b"\0", b"\xff", b"\x7f", b"\x80", b"9")) * length
            case 3:
                del data[at : at + length]
            case 4:
                data[at:at] = data[at : at + length]
            case 5:
                del data[at:]
    return bytes(data[:LONGEST])
