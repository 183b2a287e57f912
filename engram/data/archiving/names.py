"""Names in archives and of classes: what is junk, how bytes become text, which names mislead."""

from __future__ import annotations

import re
import struct
import unicodedata
import zlib
from zipfile import ZipInfo

from engram.errors import BadName, UnsafePath

# fmt: off
JUNK = frozenset(
    (
        "icon\r", "system volume information", "__macosx", ".ds_store", ".appledouble", ".spotlight-v100",
        ".trashes", ".fseventsd", ".documentrevisions-v100", ".temporaryitems", ".localized", ".volumeicon.icns",
        ".apdisk", ".com.apple.timemachine.donotpresent", "thumbs.db", "ehthumbs.db", "ehthumbs_vista.db",
        "desktop.ini", "$recycle.bin", "lost+found", ".directory", ".trash", ".thumbnails", ".hidden", ".nomedia",
        ".picasa.ini", ".picasaoriginals", "@eadir", "@recycle", ".@__thumb", "#recycle", "#snapshot", ".snapshot",
        ".stfolder", ".stversions", ".dropbox", ".dropbox.cache", ".git", ".svn", ".hg", ".bzr", ".dvc", ".github",
        ".gitkeep", ".keep", ".gitignore", ".gitattributes", ".gitmodules", ".dvcignore", ".placeholder", ".empty",
        ".ipynb_checkpoints", "__pycache__", ".cache", ".idea", ".vscode", ".venv", ".mypy_cache", ".pytest_cache",
        ".ruff_cache",
    )
)
# fmt: on
"""What systems, file managers and version control leave behind, in lower case."""

_JUNK_BEGINNINGS = ("._", ".nfs", ".trash-", ".fuse_hidden", "~$")

_INVISIBLE = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
"""Characters without a shape whose category is that of letters, marks or symbols."""

_JOINERS = frozenset("\u200c\u200d")
"""Without a width, but part of how words are written (in Persian, for one) and of emoji."""

_UNICODE_PATH = 0x7075
"""Info-ZIP's extra field with the name in UTF-8 (PKWARE's APPNOTE, 4.6.9)."""

_UTF8_FLAG = 0x800


def is_junk(part: str) -> bool:
    """Whether a file or folder of this name is passed over, wherever it lies, before anything about it is judged."""
    plain = part.casefold()
    return plain in JUNK or plain.startswith(_JUNK_BEGINNINGS)


def zip_name(info: ZipInfo) -> str:
    """The name of a zip's entry; bytes of no known encoding become lone surrogates.

    UTF-8 where the entry says so; else the Info-ZIP Unicode Path field, where it belongs to this very name; else UTF-8
    where the bytes are, since many programs write it without saying so. What is left was written in the code page of
    whoever packed it, which the archive does not name.
    """
    if info.flag_bits & _UTF8_FLAG:
        return info.orig_filename
    raw = info.orig_filename.encode("cp437")  # how Python reads the rest: each byte is one character
    return _unicode_path(info.extra, raw) or raw.decode("utf-8", "surrogateescape")


def _unicode_path(extra: bytes, raw: bytes) -> str | None:
    while len(extra) >= 4:
        kind, length = struct.unpack_from("<HH", extra)
        field, extra = extra[4 : 4 + length], extra[4 + length :]
        if kind == _UNICODE_PATH and len(field) > 5:
            version, checksum = struct.unpack_from("<BI", field)
            # The field is stale where another program has renamed the entry since.
            if version == 1 and checksum == zlib.crc32(raw):
                try:
                    return field[5:].decode()
                except UnicodeDecodeError:
                    return None
    return None


def path_of(name: str) -> tuple[tuple[str, ...], bool]:
    """The parts of an entry's name in Unicode's composed form (NFC), and whether it is junk.

    `\\` separates like `/`, as it does where such archives come from.

    Raises
    ------
    UnsafePath
        An absolute path, one that leads out of the archive, or with control characters.
    BadName
        Bytes of no known encoding.
    """
    plain = unicodedata.normalize("NFC", name).replace("\\", "/")
    if plain.startswith("/") or re.match(r"[A-Za-z]:", plain):
        raise UnsafePath(f"the name {shown(name)} is an absolute path")
    parts = tuple(part for part in plain.split("/") if part not in ("", "."))
    if ".." in parts:
        raise UnsafePath(f"the name {shown(name)} leads out of the archive")
    if any(is_junk(part) for part in parts):
        return parts, True
    if plain.isprintable():
        return parts, False
    categories = {unicodedata.category(character) for character in plain}
    if "Cs" in categories:
        raise BadName(
            f"the name {shown(name)} is not in UTF-8, and the archive does not say in which encoding; pack the folders "
            "anew by a program that writes names in UTF-8 (such as 7-Zip, or the system's own), or rename them in ASCII"
        )
    if "Cc" in categories:
        raise UnsafePath(f"the name {shown(name)} holds control characters")
    return parts, False


def shown(name: str) -> str:
    """A name for people, in ASCII: quoted, shortened, with escapes for what else is in it."""
    return ascii(name[:200]).replace("\\udc", "\\x")


def check_name(what: str, name: str) -> None:
    """See that `name` reads as what it is; `what` (such as "the class name") begins the sentence of a refusal.

    Raises
    ------
    BadName
        It begins or ends with a blank, or holds a character that is not seen: of a width but no shape, such as a
        no-break space, or of none, such as a zero-width space or a control of the writing's direction.
    """
    if name != name.strip():
        raise BadName(f"{what} {shown(name)} begins or ends with a blank")
    for at, character in enumerate(name):
        if character in _INVISIBLE or (_is_unseen(character) and not _joins(name, at)):
            raise BadName(f"{what} {shown(name)} holds U+{ord(character):04X}, which is not seen")


def _is_unseen(character: str) -> bool:
    category = unicodedata.category(character)
    return category in ("Cc", "Cf", "Cs") or (category[0] == "Z" and character != " ")


def _joins(name: str, at: int) -> bool:
    return name[at] in _JOINERS and 0 < at < len(name) - 1 and not (name[at - 1].isascii() or name[at + 1].isascii())


def look(name: str) -> str:
    """What a reader sees in a name: two names of one look are taken for each other.

    Compatibility forms (NFKC), case, joiners and variation selectors make no difference; of names of one character,
    which may be letters to tell apart, case does.
    """
    kept = (character for character in name if character not in _JOINERS and not "\ufe00" <= character <= "\ufe0f")
    plain = unicodedata.normalize("NFKC", "".join(kept)).strip()
    return plain if len(plain) == 1 else unicodedata.normalize("NFKC", plain.casefold())
