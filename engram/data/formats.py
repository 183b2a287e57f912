"""Names of file formats, told from a file's first bytes."""

from __future__ import annotations

HEAD = 512
"""So many first bytes are enough to tell every format that is known here."""

READ_FORMATS = frozenset({"PNG", "JPEG", "WebP", "BMP", "GIF", "TIFF", "AVIF"})
"""Formats of images that are decoded."""

UNREAD_FORMATS = frozenset(
    {"HEIC", "JPEG XL", "JPEG 2000", "PSD", "DICOM", "camera RAW", "SVG", "ICO", "ICNS", "OpenEXR", "Radiance HDR"}
    | {"DDS", "PNM", "FITS", "QOI", "XCF", "DjVu", "EPS", "NIfTI"}
)
"""Formats of images that are not."""

_MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"GIF87a", "GIF"),
    (0, b"GIF89a", "GIF"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (0, b"II+\0", "TIFF"),
    (0, b"MM\0+", "TIFF"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    (0, b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"8BPS", "PSD"),
    (128, b"DICM", "DICOM"),
    (0, b"FUJIFILMCCD-RAW", "camera RAW"),
    (0, b"IIRO", "camera RAW"),
    (0, b"IIRS", "camera RAW"),
    (0, b"MMOR", "camera RAW"),
    (0, b"IIU\0", "camera RAW"),
    (0, b"FOVb", "camera RAW"),
    (0, b"\0\0\1\0", "ICO"),
    (0, b"icns", "ICNS"),
    (0, b"\x76\x2f\x31\x01", "OpenEXR"),
    (0, b"#?RADIANCE", "Radiance HDR"),
    (0, b"DDS ", "DDS"),
    (0, b"SIMPLE  =", "FITS"),
    (0, b"qoif", "QOI"),
    (0, b"gimp xcf", "XCF"),
    (0, b"AT&TFORM", "DjVu"),
    (0, b"%!PS", "EPS"),
    (344, b"n+1\0", "NIfTI"),
    (0, b"%PDF-", "PDF"),
    (0, b"PK\x03\x04", "zip archive"),
    (0, b"PK\x05\x06", "zip archive"),
    (0, b"\x1f\x8b", "gzip archive"),
    (0, b"BZh", "bzip2 archive"),
    (0, b"\xfd7zXZ\0", "xz archive"),
    (0, b"\x28\xb5\x2f\xfd", "zstd archive"),
    (0, b"7z\xbc\xaf\x27\x1c", "7z archive"),
    (0, b"Rar!\x1a\x07", "RAR archive"),
    (257, b"ustar", "tar archive"),
    (0, b"\x1a\x45\xdf\xa3", "Matroska video"),
    (0, b"\0\0\1\xba", "MPEG video"),
    (0, b"\0\0\1\xb3", "MPEG video"),
    (0, b"FLV\1", "Flash video"),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "Windows video"),
    (0, b"OggS", "Ogg media"),
    (0, b"ID3", "MP3 audio"),
    (0, b"\x89HDF\r\n\x1a\n", "HDF5"),
    (0, b"\x93NUMPY", "NumPy array"),
    (0, b"SQLite format 3\0", "SQLite database"),
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "old Office document"),
)
"""(offset, bytes there, name), the first that fits."""

_BRANDS = {
    "AVIF": (b"avif", b"avis"),
    "HEIC": (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"),
    "camera RAW": (b"crx ",),
}
"""Major brands of ISO media files (ISO/IEC 14496-12) that are images."""

_RIFF = {b"WEBP": "WebP", b"AVI ": "AVI video", b"WAVE": "WAV audio"}

_BMP_HEADERS = (12, 16, 40, 52, 56, 64, 108, 124)
"""Lengths of the header that follows `BM` and 12 bytes: no text has one of them there."""

_BYTE_ORDERS = {b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}


def image_format(head: bytes) -> str | None:
    """The format of a file by its first `HEAD` bytes; one of `READ_FORMATS` where it is an image that is decoded.

    Other names are of `UNREAD_FORMATS`, or say what else it is: `text`, `PDF`, `zip archive`, `MP4 video`. None where
    no known format begins like this, and of no bytes. Whether the rest of the file is sound is not known from it.

    >>> image_format(b"GIF89a..."), image_format(b"name,label"), image_format(bytes(16))
    ('GIF', 'text', None)
    """
    if head[4:8] == b"ftyp":
        return _brand(head)
    if head.startswith(b"RIFF"):
        return _RIFF.get(head[8:12], "RIFF media")
    if head.startswith(b"BM") and int.from_bytes(head[14:18], "little") in _BMP_HEADERS:
        return "BMP"
    for offset, magic, name in _MAGIC:
        if head.startswith(magic, offset):
            return name
    if head[:1] == b"P" and head[1:2] in b"1234567" and head[2:3].isspace():
        return "PNM"
    return _text(head)


def _brand(head: bytes) -> str:
    """Of an ISO media file: by its major brand, or by the compatible ones where that is a general one."""
    end = min(int.from_bytes(head[:4], "big"), len(head))
    brands = [head[8:12], *(head[at : at + 4] for at in range(16, end - 3, 4))]
    # `mif1` and `msf1` say only that it holds pictures: what is coded how is among the compatible brands.
    for name in ("AVIF", "HEIC", "camera RAW"):
        if brands[0] in _BRANDS[name] and brands[0] not in (b"mif1", b"msf1"):
            return name
    if brands[0] in (b"mif1", b"msf1"):
        return "AVIF" if set(brands) & set(_BRANDS["AVIF"]) else "HEIC"
    return "QuickTime video" if brands[0] == b"qt  " else "MP4 video"


def _text(head: bytes) -> str | None:
    """`text`, `HTML` or `SVG` where all bytes are characters of UTF-8 or, with its mark, UTF-16."""
    try:
        text = head.decode(_BYTE_ORDERS[head[:2]], "ignore") if head[:2] in _BYTE_ORDERS else head.decode()
    except UnicodeDecodeError as error:
        # The last character may be cut in two.
        if error.start < len(head) - 3 or error.reason != "unexpected end of data":
            return None
        text = head[: error.start].decode()
    if not text or any(ord(character) < 32 and not character.isspace() for character in text):
        return None
    plain = text.lstrip("\ufeff \t\r\n").lower()
    if plain.startswith("<svg") or (plain.startswith("<?xml") and "<svg" in plain):
        return "SVG"
    return "HTML" if plain.startswith(("<!doctype html", "<html")) else "text"
