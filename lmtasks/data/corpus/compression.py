"""Compressed data files.

Datasets can read through compression, but then forgets the encoding (and with it the byte order mark),
takes a truncated stream for a network failure and retries it for minutes, and cannot read compressed
parquet. So the files are unpacked beside its cache and read like any others.
"""

from __future__ import annotations

import gzip
import hashlib
import lzma
import os
import re
import shutil
import tempfile
import zlib
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa

from lmtasks.errors import InputError

COMPRESSED = (".gz", ".xz", ".zst")
_ARCHIVES = {rb"PK\x03\x04": "zip archive", rb"BZh[1-9]1AY&": "bzip2 file", rb"7z\xbc\xaf": "7z archive"}
_BLOCK = 1 << 20


def unpacked(file: Path) -> Path:
    """The file itself, or an uncompressed copy of it in the cache of ``datasets``.

    The content decides, not the name: gzip under the name of a text file is unpacked too.

    Raises:
        InputError: unreadable, damaged, an archive, or plain under the name of a compressed file.
    """
    start = _first_bytes(file)
    for pattern, what in _ARCHIVES.items():
        if re.match(pattern, start):
            raise InputError(f"{file} is a {what}", "unpack it first")
    if start.startswith((b"\x1f\x8b", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd")):
        return _copy(file, start)
    if start and file.suffix.lower() in COMPRESSED:
        raise InputError(f"{file} is not compressed, whatever its name says", "rename it, or compress it")
    return file


def _first_bytes(file: Path) -> bytes:
    if not file.is_file():
        raise InputError(f"{file} is not a regular file", "save the data in a file first")
    try:
        with file.open("rb") as stream:
            return stream.read(8)
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror}", "check who may read it") from error


def _copy(file: Path, start: bytes) -> Path:
    """The uncompressed copy, made once for each state of the file."""
    status = file.stat()
    key = hashlib.sha256(f"{os.path.realpath(file)}\0{status.st_mtime_ns}\0{status.st_size}".encode()).hexdigest()
    target = Path(datasets.config.HF_DATASETS_CACHE, "lmtasks-unpacked", key[:32], file.stem)
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        _unpack(file, start, target)
    return target


def _unpack(file: Path, start: bytes, target: Path) -> None:
    # Several processes may unpack at once: each writes a file of its own, the last rename wins.
    handle, name = tempfile.mkstemp(dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as plain, _opened(file, start) as stream:
            shutil.copyfileobj(stream, plain, _BLOCK)
        # Datasets tells states of a file apart by this time; a copy made anew must not look changed.
        os.utime(name, ns=(file.stat().st_atime_ns, file.stat().st_mtime_ns))
        os.replace(name, target)
    except (zlib.error, lzma.LZMAError, EOFError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # of the disk, not of what is on it
            raise
        raise InputError(f"{file} is damaged or cut short: {error}", "fetch or compress it again") from error
    finally:
        Path(name).unlink(missing_ok=True)


def _opened(file: Path, start: bytes) -> Any:
    if start.startswith(b"\x1f"):
        return gzip.open(file)
    # The reader of zstandard takes a file that is cut short for a complete one; Arrow's does not.
    return lzma.open(file) if start.startswith(b"\xfd") else pa.input_stream(file, "zstd")
