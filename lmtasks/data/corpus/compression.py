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
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import datasets

from lmtasks.errors import InputError

COMPRESSED = (".gz", ".xz", ".zst")
_MAGIC = {b"\x1f\x8b": ".gz", b"\xfd7zXZ\x00": ".xz", b"\x28\xb5\x2f\xfd": ".zst"}
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
    kind = next((kind for magic, kind in _MAGIC.items() if start.startswith(magic)), None)
    if kind is not None:
        return _copy(file, kind)
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


def _copy(file: Path, kind: str) -> Path:
    """Unpacks once for each state of the file."""
    status = file.stat()
    key = hashlib.sha256(f"{os.path.realpath(file)}\0{status.st_mtime_ns}\0{status.st_size}".encode()).hexdigest()
    target = Path(datasets.config.HF_DATASETS_CACHE, "lmtasks-unpacked", key[:32], file.stem)
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        _unpack(file, kind, target)
    return target


def _unpack(file: Path, kind: str, target: Path) -> None:
    # Several processes may unpack at once: each writes a file of its own, the last rename wins.
    handle, name = tempfile.mkstemp(dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as plain, file.open("rb") as packed:
            plain.writelines(_blocks(packed, kind))
        # Datasets tells states of a file apart by this time; a copy made anew must not look changed.
        os.utime(name, ns=(file.stat().st_atime_ns, file.stat().st_mtime_ns))
        os.replace(name, target)
    except (gzip.BadGzipFile, zlib.error, lzma.LZMAError, EOFError) as error:
        raise InputError(f"{file} is damaged or cut short: {error}", "fetch or compress it again") from error
    finally:
        Path(name).unlink(missing_ok=True)


def _blocks(packed: BinaryIO, kind: str) -> Iterator[bytes]:
    if kind == ".zst":
        return _zstd_blocks(packed)
    decoder = gzip.GzipFile(fileobj=packed) if kind == ".gz" else lzma.LZMAFile(packed)  # noqa: SIM115  (owns no file)
    return iter(lambda: decoder.read(_BLOCK), b"")


def _zstd_blocks(packed: BinaryIO) -> Iterator[bytes]:
    """Frame by frame, because zstandard's own reader takes a file that is cut short for a complete one."""
    try:
        import zstandard
    except ImportError as error:
        raise InputError(f"{packed.name} needs a package to be read", "pip install zstandard") from error
    decoder = None
    while block := packed.read(_BLOCK):
        while block:
            decoder = decoder or zstandard.ZstdDecompressor().decompressobj()
            try:
                yield decoder.decompress(block)
            except zstandard.ZstdError as error:
                raise EOFError(str(error)) from error
            block = decoder.unused_data if decoder.eof else b""
            decoder = None if decoder.eof else decoder
    if decoder is not None:
        raise EOFError("the last frame is incomplete")
