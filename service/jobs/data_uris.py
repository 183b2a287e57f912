"""Addresses of training data, and the prefixes that allow them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from service.errors.exceptions import DataUriNotAllowed

_FILE = re.compile(r"file:(?://(?:localhost)?(?=/)|(?!//))(/.*)", re.IGNORECASE | re.DOTALL)
_BUCKET = re.compile(r"(?:s3|gs|az)://", re.IGNORECASE)


def allowed_uri(uri: str, prefixes: tuple[str, ...]) -> str:
    """`uri` in its plainest form, when one of `prefixes` covers it.

    Both are decoded, and files and folders resolved, before they are compared: neither `..` nor a link leads out of a
    prefix, and a prefix may itself lie below a link. It waits for the file system.

    Raises
    ------
    DataUriNotAllowed
        No prefix covers it, or it is neither `s3://bucket/key` (or `gs://`, `az://`) nor `file:///path`.
    """
    if _FILE.fullmatch(uri):
        path = _resolved(uri)
        if path is None:
            raise DataUriNotAllowed("data.uri is not the address of a file: its path cannot be decoded.")
        folders = (_resolved(prefix) for prefix in prefixes if _FILE.fullmatch(prefix))
        if any(folder in path.parents for folder in folders):
            return f"file://{path}"
    elif _BUCKET.match(uri):
        key = _in_bucket(uri)
        if key is None:
            raise DataUriNotAllowed("data.uri is not SCHEME://bucket/key; a key with ?, # or .. in it cannot be named.")
        places = (_in_bucket(prefix) for prefix in prefixes if _BUCKET.match(prefix))
        if any(place is not None and key.startswith(place.rstrip("/") + "/") for place in places):
            return key
    else:
        raise DataUriNotAllowed("data.uri is none of s3://bucket/key, gs://, az:// and file:///path.")
    raise DataUriNotAllowed(f"{uri} is not under any of the places that data may be taken from.")


def useless(prefixes: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """The prefixes that allow nothing at present, each with the reason."""
    for prefix in prefixes:
        if _FILE.fullmatch(prefix):
            folder = _resolved(prefix)
            if folder is None:
                yield prefix, "its path cannot be decoded"
            elif not folder.exists():
                yield prefix, "there is no such folder"
            elif not folder.is_dir():
                yield prefix, "it is a file, and allows what is below a folder"
        elif prefix.lower().startswith("file:"):
            yield prefix, "it is not absolute: file:/// and a path"
        elif not _BUCKET.match(prefix):
            yield prefix, "it begins with none of s3://, gs://, az:// and file:///"
        elif _in_bucket(prefix) is None:
            yield prefix, "it is not SCHEME://bucket/folder/"


def _resolved(uri: str) -> Path | None:
    """The file or folder of a `file:` address, without links; None where its path cannot be decoded."""
    match = _FILE.fullmatch(uri)
    assert match is not None, "the callers look first"
    try:
        return Path(os.path.realpath("/" + unquote(match[1], errors="strict").lstrip("/")))
    except ValueError:  # no UTF-8, or a zero byte
        return None


def _in_bucket(uri: str) -> str | None:
    """An address in a bucket in its plainest form; None without a bucket, or with a key that is not certain."""
    parts = urlsplit(uri)
    if not parts.netloc or "?" in uri or "#" in uri or ".." in parts.path.split("/"):
        return None
    return f"{parts.scheme}://{parts.netloc}{parts.path}"
