"""Compressed data files: what they are is told by their first bytes, whatever their names say."""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from lmtasks.errors import InputError

COMPRESSED = (".gz", ".xz", ".zst", ".bz2")
_ARCHIVES = {rb"PK\x03\x04": "zip archive", rb"7z\xbc\xaf": "7z archive", rb"Rar!": "rar archive"}
_STREAMS = rb"\x1f\x8b|\xfd7zXZ\x00|\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18|BZh[1-9](?:1AY&|\x17\x72)"
"""How compressed files begin; zstd's also with a frame that is to be skipped, as pzstd writes them."""

_BLOCK = 1 << 20


def decompressed(file: Path, *, archives: bool = False) -> Iterator[bytes] | None:
    """The bytes of a compressed file, block by block; None for one that is not compressed.

    Args:
        archives: whether the file may be one, as those of some formats are.

    Raises:
        InputError: an archive, or plain under the name of a compressed file; on the way: damaged or cut short.
    """
    with file.open("rb") as stream:
        start = stream.read(8)
    for pattern, what in _ARCHIVES.items():
        if re.match(pattern, start) and not archives:
            raise InputError(f"{file} is a {what}", "unpack it first")
    if re.match(_STREAMS, start):
        return _blocks(file, start)
    if start and file.suffix.lower() in COMPRESSED:
        raise InputError(f"{file} is not compressed, whatever its name says", "rename it, or compress it")
    return None


def _blocks(file: Path, start: bytes) -> Iterator[bytes]:
    try:
        with _opened(file, start) as stream:
            yield from iter(lambda: stream.read(_BLOCK), b"")
    except (zlib.error, lzma.LZMAError, EOFError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # of the disk, not of what is on it
            raise
        raise InputError(f"{file} is damaged or cut short: {error}", "fetch or compress it again") from error


def _opened(file: Path, start: bytes) -> Any:
    if start.startswith(b"\x1f"):
        return gzip.open(file)
    if start.startswith(b"BZ"):
        return bz2.open(file)
    # The reader of zstandard takes a file that is cut short for a complete one; Arrow's does not.
    return lzma.open(file) if start.startswith(b"\xfd") else pa.input_stream(file, "zstd")
