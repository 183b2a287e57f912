"""Digest of what a decoder makes of the reference images, with all that the pixels depend on."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache, lru_cache
from typing import Any, Self

from PIL import features

from engram.config.definition import Definition, InputShape
from engram.data.reference.reference_images import reference_digest, reference_images
from engram.errors import DamagedSnapshot

_LIBRARIES = ("jpg", "libjpeg_turbo", "zlib", "zlib_ng", "libtiff", "webp", "avif")
"""Those that Pillow decodes with, by its own names."""


@dataclass(frozen=True)
class DecoderDigest:
    """SHA-256 of the pixels that one decoder gives for the reference images, by the shape of a model's images.

    As long as it stays the same, encoded images become the same pixels, and have the same answers, bit for bit.
    """

    number: int
    """The decoder's (`Definition.decoder`)."""
    background: str | None
    """What transparent parts are laid over, where the model names it."""
    pillow: dict[str, str]
    """Versions of Pillow and of the libraries that it decodes with, and the platform."""
    images: int
    """How many reference images there were."""
    sha256: str
    before: dict[str, Any] | None = None
    """Where other libraries gave other pixels for the version before: their versions and their SHA-256."""

    @classmethod
    def of(cls, definition: Definition) -> Self:
        """That of a model, here and now."""
        images, sha256 = _digest(definition.input, definition.decoder)
        return cls(definition.decoder, definition.input.background, dict(_libraries()), images, sha256)

    def changed_since(self, earlier: DecoderDigest | None) -> bool:
        """Whether the same decoder gave other pixels for the same images."""
        if earlier is None or self._subject != earlier._subject:
            return False
        return self.sha256 != earlier.sha256

    def after(self, earlier: DecoderDigest | None) -> Self:
        """Itself, with what was `before` where the pixels have changed since."""
        if earlier is None or not self.changed_since(earlier):
            return self
        return replace(self, before={"pillow": earlier.pillow, "sha256": earlier.sha256})

    def describe_change(self, earlier: DecoderDigest) -> str:
        """A sentence that says what has changed since an earlier one."""
        what = f"Decoder {self.number} no longer gives the pixels that were certified"
        then, now = earlier.pillow, self.pillow
        names = [name for name in sorted({*then, *now}) if then.get(name) != now.get(name)]
        if not names:
            return f"{what}, though the libraries are the same: encoded images would be answered otherwise."
        moved = ", ".join(f"{name} {then.get(name, 'none')} became {now.get(name, 'none')}" for name in names)
        return f"{what}, since {moved}: encoded images may be answered otherwise."

    @property
    def _subject(self) -> tuple[object, ...]:
        return self.number, self.background, self.images

    def to_dict(self) -> dict[str, Any]:
        """As a JSON object."""
        found = asdict(self)
        if self.before is None:
            del found["before"]
        return found

    @classmethod
    def from_dict(cls, data: object) -> Self:
        """From a JSON object; what later releases may add is passed over.

        Raises
        ------
        DamagedSnapshot
            for a part that is missing or of another type.
        """
        kinds: dict[str, Any] = {
            "number": int,
            "background": str | None,
            "pillow": dict,
            "images": int,
            "sha256": str,
            "before": dict | None,
        }
        if not isinstance(data, Mapping):
            raise DamagedSnapshot("the decoder in a certificate is a JSON object")
        found: dict[str, Any] = {name: data.get(name) for name in kinds}
        for name, kind in kinds.items():
            if not isinstance(found[name], kind):
                raise DamagedSnapshot(f"the decoder in a certificate has no {name!r} of the right type")
        return cls(**found)


@lru_cache(maxsize=256)
def _digest(shape: InputShape, decoder: int) -> tuple[int, str]:
    return len(reference_images()), reference_digest(shape, decoder)


@cache
def _libraries() -> Mapping[str, str]:
    versions = {name: features.version(name) for name in ("pil", *_LIBRARIES) if features.check(name)}
    found = {("pillow" if name == "pil" else name): str(version) for name, version in versions.items()}
    return {**found, "platform": f"{platform.system()} {platform.machine()}"}
