"""Text files, mapped into memory: one that is a single line takes no more of it than any other."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lmtasks.api import Reading
from lmtasks.errors import InputError

BEGINS = "text_begins"
"""The column that says with which lines a text begins."""

_AT_ONCE = 4 << 20
"""Bytes."""

_RETURN = re.compile(rb"\r")
_BREAK = re.compile(rb"\r\n?|\n")
_PARAGRAPHS = re.compile(r"\n(?:[^\S\n]*\n)+")


def read(file: Path, reading: Reading) -> Iterator[pa.Table]:
    """The column ``text`` of a file in UTF-8: its lines with their breaks, its paragraphs, or the whole.

    All kinds of line breaks become one. Beside lines, a column says which of them is the first of the file: files are
    texts of their own. Paragraphs are parted by lines of nothing but white space, and have no line break at the end.
    """
    if file.stat().st_size >= 2**31 and reading.settings.sample_by == "document":
        raise InputError(f"{reading.name} is one document of more than 2 GB", "divide it, or --sample_by line")
    if reading.settings.sample_by == "paragraph":
        yield from (pa.table({"text": pa.array(rows, pa.string())}) for rows in _paragraphs(file))
        return
    lines = reading.settings.sample_by == "line"
    for number, rows in enumerate(_rows(file, lines)):
        begins = {BEGINS: pa.array(np.arange(len(rows)) == (number and -1))} if lines else {}
        yield pa.table({"text": rows, **begins})


def _rows(file: Path, lines: bool) -> Iterator[pa.Array]:
    """The rows of a file, in arrays of about ``_AT_ONCE`` bytes if they are lines."""
    text = pa.memory_map(str(file)).read_buffer()
    place = len(codecs.BOM_UTF8) if bytes(memoryview(text)[:3]) == codecs.BOM_UTF8 else 0
    while place < len(text):
        last = _BREAK.search(text, min(place + _AT_ONCE, len(text))) if lines else None
        end = last.end() if last else len(text)
        part = text.slice(place, end - place)
        place = end
        if _RETURN.search(part):
            part = pa.py_buffer(part.to_pybytes().replace(b"\r\n", b"\n").replace(b"\r", b"\n"))
        if len(part) >= 2**31:
            raise InputError(f"{file} has a line of more than 2 GB", "divide it")
        ends = _ends(part) if lines else np.asarray([len(part)])
        offsets = np.concatenate([[0], ends]).astype(np.int32)
        yield pa.StringArray.from_buffers(len(ends), pa.py_buffer(offsets), part)


def _ends(text: pa.Buffer) -> npt.NDArray[np.int64]:
    """The places where the lines end."""
    data = np.frombuffer(text, np.uint8)
    starts = range(0, len(data), _AT_ONCE)
    ends = np.concatenate([np.flatnonzero(data[start : start + _AT_ONCE] == ord("\n")) + start + 1 for start in starts])
    return ends if len(ends) and ends[-1] == len(data) else np.append(ends, len(data))


def _paragraphs(file: Path) -> Iterator[list[str]]:
    """The paragraphs of a file, about ``_AT_ONCE`` bytes at a time."""
    rest = ""
    for lines in _rows(file, lines=True):
        *whole, rest = _PARAGRAPHS.split(rest + "".join(lines.to_pylist()))
        yield [paragraph for paragraph in whole if paragraph.strip()]
    yield [rest.removesuffix("\n")] if rest.strip() else []
