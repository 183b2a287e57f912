"""Bundle file format: a plain tar of a manifest and of all objects of one model.

    manifest.json            sealed; the model's name, and the size and SHA-256 of every member below
    model.json               its record
    log/{version:08d}.json   its commits, without a gap
    blobs/{sha256}           the blobs that these name

It holds neither the time nor the place of the export, so equal models give equal bytes. Only plain files with these
names are written and read, each with one header of 512 bytes: no bundle can make a reader write outside its folder or
hold more than one member in memory.
"""

from __future__ import annotations

import hashlib
import re
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from vault.errors import Damaged, InvalidBundle
from vault.storage.documents import seal, unseal

MANIFEST = "manifest.json"
_KIND = "engram model"
_BLOCK = tarfile.BLOCKSIZE
_CHUNK = 4 * 2**20
_LONGEST_RECORD = 64 * 2**20
_MEMBER = re.compile(r"model\.json|log/[0-9]{8}\.json|blobs/[0-9a-f]{64}")


class BundleWriter:
    """Writer of a bundle into a file; `members` lists the size and SHA-256 of every member beforehand."""

    def __init__(self, file: BinaryIO, model: str, members: Mapping[str, tuple[int, str]]) -> None:
        self._tar = tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115  # see close
        listed = {name: {"bytes": size, "sha256": sha} for name, (size, sha) in members.items()}
        self._add(MANIFEST, seal({"kind": _KIND, "model": model, "members": listed}))

    def add(self, name: str, data: bytes) -> None:
        """Write the next member."""
        assert _MEMBER.fullmatch(name), "members have the names that readers know"
        self._add(name, data)

    def close(self) -> None:
        """Write the end of the tar."""
        self._tar.close()

    def _add(self, name: str, data: bytes) -> None:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        self._tar.addfile(info, BytesIO(data))


@dataclass(frozen=True)
class Member:
    """Position of a member's bytes, and their expected size and hash."""

    offset: int
    size: int
    sha256: str


class BundleReader:
    """Reader of an untrusted bundle; a context manager.

    Raises
    ------
    InvalidBundle
        It is no bundle: not such a tar, or its members differ from those of the manifest.
    Damaged, UnsupportedRecord
        Its manifest is damaged, or was written by a later release.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        try:
            found = dict(self._members())
            manifest = self._manifest(found)
            self.model = str(manifest.get("model"))
            self.members = self._checked_members(manifest, found)
        except BaseException:
            self._file.close()
            raise

    def verify(self) -> None:
        """Read every member in bounded memory and compare its hash; raises Damaged."""
        for name, member in self.members.items():
            self._file.seek(member.offset)
            digest, left = hashlib.sha256(), member.size
            while left and (chunk := self._file.read(min(left, _CHUNK))):
                digest.update(chunk)
                left -= len(chunk)
            _check_sha256(name, member, digest.hexdigest())

    def read(self, name: str) -> bytes:
        """One member's bytes, whose hash is compared again; raises Damaged, InvalidBundle."""
        if (member := self.members.get(name)) is None:
            raise InvalidBundle(f"There is no {name} in this bundle.")
        data = self._read(member.offset, member.size)
        _check_sha256(name, member, hashlib.sha256(data).hexdigest())
        return data

    def read_json(self, name: str) -> dict[str, Any]:
        """One record; raises Damaged, UnsupportedRecord, InvalidBundle."""
        if name in self.members and self.members[name].size > _LONGEST_RECORD:
            raise InvalidBundle(f"{name} is too large for a record.")
        return unseal(name, self.read(name))

    def _read(self, offset: int, size: int) -> bytes:
        self._file.seek(offset)
        return self._file.read(size)

    def _members(self) -> Iterator[tuple[str, tuple[int, int]]]:
        """Names with offset and size from the headers, up to the block of zeros that ends a tar."""
        names: set[str] = set()
        offset, length = 0, self._file.seek(0, 2)
        while True:
            block = self._read(offset, _BLOCK)
            if block == bytes(_BLOCK):
                return
            try:
                info = tarfile.TarInfo.frombuf(block, "ascii", "strict")
            except (tarfile.HeaderError, UnicodeDecodeError) as error:
                raise InvalidBundle(f"This is no bundle, or it was cut short: {error}.") from error
            name, size = info.name, info.size
            if info.type != tarfile.REGTYPE or not (name == MANIFEST or _MEMBER.fullmatch(name)):
                raise InvalidBundle(f"A bundle has no member {name[:120]!r}.")
            if name in names:
                raise InvalidBundle(f"The member {name} is there twice.")
            names.add(name)
            offset += _BLOCK
            if size < 0 or offset + size > length:
                raise InvalidBundle(f"The bundle was cut short in {name}.")
            yield name, (offset, size)
            offset += -(-size // _BLOCK) * _BLOCK

    def _manifest(self, found: Mapping[str, tuple[int, int]]) -> dict[str, Any]:
        if next(iter(found), None) != MANIFEST or found[MANIFEST][1] > _LONGEST_RECORD:
            raise InvalidBundle("This is no bundle of a model: it does not begin with a manifest.")
        manifest = unseal(MANIFEST, self._read(*found[MANIFEST]))
        if manifest.get("kind") != _KIND or not isinstance(manifest.get("members"), dict):
            raise InvalidBundle("This is no bundle of a model: its manifest is of something else.")
        return manifest

    def _checked_members(self, manifest: Mapping[str, Any], found: Mapping[str, tuple[int, int]]) -> dict[str, Member]:
        listed = manifest["members"]
        there = {name: place for name, place in found.items() if name != MANIFEST}
        if odd := sorted(listed.keys() ^ there.keys()):
            raise InvalidBundle(f"The bundle and its manifest do not agree on {odd[0][:120]!r}.")
        members = {}
        for name, (offset, size) in there.items():
            try:
                expected, sha = listed[name]["bytes"], str(listed[name]["sha256"])
            except (KeyError, TypeError) as error:
                raise InvalidBundle(f"The manifest says nothing of {name}.") from error
            if size != expected:
                raise Damaged(name, f"it has {size} bytes, not {expected}")
            if name.startswith("blobs/") and name != f"blobs/{sha}":
                raise InvalidBundle(f"{name} is not named by its hash.")
            members[name] = Member(offset, size, sha)
        return members

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def _check_sha256(name: str, member: Member, found: str) -> None:
    if found != member.sha256:
        raise Damaged(name, f"its SHA-256 is {found}, not {member.sha256}")
