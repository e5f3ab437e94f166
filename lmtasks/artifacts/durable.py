"""Files that are whole or not there: written next door, flushed to the disk, and moved into place."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write, or replace, in one step: a reader never sees half a file, and on a full disk the old one stays."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """The same for text as UTF-8 with plain line ends. A link is replaced, not what it points to."""
    new = half_written(path)
    new.unlink(missing_ok=True)
    try:
        new.write_text(text, encoding="utf-8", newline="\n")
        flush(new)
        os.replace(new, path)
    except BaseException:
        with suppress(OSError):
            new.unlink(missing_ok=True)
        raise
    flush(path.parent)


def half_written(path: Path) -> Path:
    """Where a file lies until it is whole."""
    return path.with_name(f".{path.name}.new")


def flush(path: Path) -> None:
    """Have a file, or the names in a folder, on the disk itself."""
    if not path.is_dir():
        _flush(path)
        return
    # Windows opens no folders, and some network file systems flush none: there is no more to be had there.
    with suppress(OSError):
        _flush(path)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def digest(path: Path) -> str:
    """The SHA-256 of a file, 64 hexadecimal digits."""
    status = path.stat()
    return _digest(path.absolute(), status.st_size, status.st_mtime_ns, status.st_ino)


@lru_cache(maxsize=1024)
def _digest(path: Path, *_: int) -> str:
    """Asked twice, by who looks and by who then acts, a file that nobody has touched is read once."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
