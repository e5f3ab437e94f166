"""The bytes of a data file as its reader wants them: unpacked, and in UTF-8 where they are characters.

What has to be changed for that is written into the cache of ``datasets``, once for each content of the file.
"""

from __future__ import annotations

import codecs
import hashlib
import os
import re
import tempfile
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path

import datasets
import numpy as np

from lmtasks.data.corpus.compression import decompressed
from lmtasks.errors import InputError, first_line
from lmtasks.progress import say

_BLOCK = 1 << 16
"""Bytes that are read at once. Decoded a MiB at a time, a file of a GB leaves holes of 200 MiB in the heap."""

_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""Byte order marks, the longer first: one of UTF-32 begins like one of UTF-16."""

_WIDE = {"utf-16-le": (2, 1), "utf-16-be": (2, 0), "utf-32-le": (4, 3), "utf-32-be": (4, 0)}
"""Encodings in units of several bytes, and which byte of a unit is zero in most scripts."""

LEGIBLE = 0.98
"""Share of characters that are none of the odd ones, from which on bytes are taken for text in an encoding."""

MOSTLY = 0.9
"""The same share below which bytes that are valid UTF-8 may be something else."""

MOST_NUL = 0.1
"""Share of NUL characters from which on bytes are no text."""


_JOINER = "Cf"
"""Category of what is between letters and is not seen: joiners of Persian and of emoji, marks of direction."""

_ESCAPED = re.compile(rb"\x1b\$(?:[@B]|[()][A-D])")
"""How ISO 2022 begins letters of East Asia; nothing but ASCII, it would be read as what these letters are not."""


def plain(file: Path, *, characters: bool, encoding: str | None) -> Path:
    """The file itself, or a copy of it, unpacked and, where it is characters, in UTF-8.

    Args:
        characters: whether the file is nothing but characters.
        encoding: of these; None for UTF-8, or UTF-16 or UTF-32 if it looks like that.

    Raises:
        InputError: unreadable, damaged, an archive, binary, or not in that encoding.
    """
    blocks = decompressed(file, archives=not characters)
    path = file if blocks is None else _kept(file, "unpacked", blocks)
    if not path.stat().st_size:
        raise InputError(f"{file} is empty", "leave it out, or give a file with text")
    if not _is_unicode(str(path)):
        path = _kept(file, "named", _blocks(path))
    if not characters:
        return path
    encoding = _codec(encoding) or _told(path)
    if encoding is not None:
        _tell_other(file, path, encoding)
        return _kept(path, encoding, _transcoded(file, path, encoding))
    _require_text(file, path)
    return path


def _is_unicode(name: str) -> bool:
    """Whether a name is text; one of other bytes is no name to pyarrow."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def digest(file: Path) -> str:
    """32 hexadecimal digits of what a file holds.

    Raises:
        InputError: no file, or one that cannot be read.
    """
    if not file.is_file():
        raise InputError(f"{file} is not a regular file", "save the data in a file first")
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror}", "check who may read it") from error


def _kept(file: Path, how: str, blocks: Iterable[bytes]) -> Path:
    """The copy of a file that these bytes are, made once for each content of the file."""
    target = Path(datasets.config.HF_DATASETS_CACHE, "lmtasks-content", f"{digest(file)}-{how}")
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    # Several processes may do so at once: each writes a file of its own, the last rename wins.
    handle, name = tempfile.mkstemp(dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as copy:
            for block in blocks:
                copy.write(block)
        os.replace(name, target)
    finally:
        Path(name).unlink(missing_ok=True)
    return target


def _codec(encoding: str | None) -> str | None:
    """Python's name of an encoding; None for UTF-8, which needs no copy.

    Raises:
        InputError: Python knows no such encoding of characters.
    """
    try:
        known = None if encoding is None else codecs.lookup(encoding)
        if known is not None:
            b"a".decode(known.name, "ignore")  # not one from bytes to bytes, which is found as well
    except (LookupError, ValueError) as error:
        raise InputError(f"--encoding cannot be '{encoding}': {error}", "such as --encoding cp1252") from error
    return None if known is None or known.name in ("utf-8", "utf-8-sig", "ascii") else known.name


def _tell_other(file: Path, path: Path, encoding: str) -> None:
    """Say that a file is UTF-8 by all appearances, where another encoding was named, perhaps for a file beside it."""
    with path.open("rb") as stream:
        text = _beginning(stream.read(_BLOCK), "utf-8")
    if not text.isascii() and "\0" not in text:
        say(f"{file} is read as {encoding}, as was asked for; its bytes are UTF-8 as well")


def _told(path: Path) -> str | None:
    """The encoding that a file says by its mark, or by where its zeros are; None where it says nothing."""
    with path.open("rb") as stream:
        start = stream.read(_BLOCK)
    for mark, encoding in _MARKS:
        if start.startswith(mark):
            return encoding
    for encoding, (width, place) in _WIDE.items():
        data = np.frombuffer(start, np.uint8)[: len(start) // width * width].reshape(-1, width)
        zero = (data == 0).mean(axis=0) if len(data) else np.zeros(width)
        # UTF-32 has zeros in three places of four, or two, UTF-16 in one of two.
        others = np.delete(zero, place)
        if zero[place] > 0.5 and (others.min() < 0.1 or width == 4) and _legible(start, encoding) > 0.5:
            return encoding
    # Scripts beyond Latin have few zeros in UTF-16, those of spaces and line breaks; as UTF-8, they are none or odd.
    if 0 in start and _legible(start, "utf-8") < MOSTLY:
        best = max(_WIDE, key=lambda encoding: _legible(start, encoding))
        return best if _legible(start, best) >= LEGIBLE and set(" \n") & {*_beginning(start, best)} else None
    return None


def _legible(start: bytes, encoding: str) -> float:
    """The share of characters at the beginning of a file that a person could read; 0 if it is not in that encoding."""
    text = _beginning(start, encoding)
    read = (letter.isprintable() or letter.isspace() or unicodedata.category(letter) == _JOINER for letter in text)
    return sum(read) / max(1, len(text))


def _beginning(start: bytes, encoding: str) -> str:
    """The first characters of a file in an encoding; none if it is not in that."""
    try:
        return codecs.getincrementaldecoder(encoding)().decode(start[: 1 << 16])
    except UnicodeDecodeError:
        return ""


def _transcoded(file: Path, path: Path, encoding: str) -> Iterator[bytes]:
    """A file's characters in UTF-8."""
    decoder = codecs.getincrementaldecoder(encoding)()
    size = 0
    try:
        for block in _blocks(path):
            size += len(block)
            yield decoder.decode(block, final=not block).encode()
    except UnicodeDecodeError as error:
        place = size - len(error.object) + error.start
        raise InputError(
            f"{file} is not {encoding}: byte {place} starts no character", "--encoding NAME, the one that it is in"
        ) from error
    except UnicodeError as error:  # half a surrogate pair, or an encoding with errors of its own
        raise InputError(f"{file} is not {encoding}: {first_line(error)[:120]}", "--encoding NAME") from error


def _require_text(file: Path, path: Path) -> None:
    """Refuse what is not UTF-8, or holds hardly anything but zeros."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    size = zeros = 0
    try:
        for block in _blocks(path):
            if escape := _ESCAPED.search(block):
                raise InputError(
                    f"{file} is in ISO 2022, an encoding with escapes: the first is at byte {size + escape.start()}",
                    f"--encoding {'iso2022_kr' if b')' in escape[0] else 'iso2022_jp_2'}",
                )
            size += len(block)
            zeros += block.count(0)
            decoder.decode(block, final=not block)
    except UnicodeDecodeError as error:
        # Its object begins with what the decoder had kept of an incomplete character.
        raise _not_utf8(file, path, size - len(error.object) + error.start) from error
    if size == len(codecs.BOM_UTF8) and path.read_bytes() == codecs.BOM_UTF8:
        raise InputError(f"{file} is empty", "leave it out, or give a file with text")
    if zeros > MOST_NUL * size:
        raise InputError(f"{file} is a binary file: {zeros:,} of its {size:,} bytes are zero", "give a file with text")


def _not_utf8(file: Path, path: Path, place: int) -> InputError:
    from charset_normalizer import from_bytes  # slow, and wanted only here

    with path.open("rb") as stream:
        start = stream.read(8192)
        stream.seek(max(0, place - 8192))
        near = stream.read(16384)
    if b"\0" in start:
        return InputError(f"{file} is a binary file: byte {place} starts no character", "give a file with text")
    best = from_bytes(near).best()
    guess = best.encoding if best is not None else "cp1252"
    return InputError(
        f"{file} is not valid UTF-8: byte {place} starts no character",
        f"--encoding NAME, the one that it is in; it looks like {guess}",
    )


def _blocks(path: Path) -> Iterator[bytes]:
    """The bytes of a file, block by block; the last block is empty."""
    with path.open("rb") as stream:
        yield from iter(lambda: stream.read(_BLOCK), b"")
    yield b""
