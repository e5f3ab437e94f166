"""Text files, mapped into memory: one that is a single line takes no more of it than any other.

The text builder of ``datasets`` holds a long line several times over, some of them at four bytes a character.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from datasets.builder import Key
from datasets.packaged_modules.text.text import Text

from lmtasks.errors import InputError

BEGINS = "text_begins"
"""The column that says with which lines a text begins."""

_AT_ONCE = 4 << 20
"""Bytes."""

_RETURN = re.compile(rb"\r")
_BREAK = re.compile(rb"\r\n?|\n")


class PlainText(Text):
    """Yields lines with their breaks, or whole files; paragraphs as its parent does.

    A column beside the lines says with which of them a file begins: files are texts of their own.

    Files are UTF-8, with or without a byte order mark. All kinds of line breaks become one.
    """

    def _generate_tables(self, base_files: Any, files_iterables: Any) -> Iterator[tuple[Any, pa.Table]]:
        if self.config.sample_by == "paragraph":
            yield from super()._generate_tables(base_files, files_iterables)
            return
        for shard, files in enumerate(files_iterables):
            for file in files:
                lines = self.config.sample_by == "line"
                for number, rows in enumerate(_rows(file, lines)):
                    begins = {BEGINS: pa.array(np.arange(len(rows)) == (number and -1))} if lines else {}
                    yield Key(shard, number), pa.table({"text": rows, **begins})


def _rows(file: str, lines: bool) -> Iterator[pa.Array]:
    """The rows of a file, in arrays of about ``_AT_ONCE`` bytes if they are lines.

    Raises:
        ArrowInvalid: not UTF-8.
        InputError: a row that Arrow cannot hold.
    """
    text = pa.memory_map(file).read_buffer()
    place = len(codecs.BOM_UTF8) if bytes(memoryview(text)[:3]) == codecs.BOM_UTF8 else 0
    while place < len(text):
        last = _BREAK.search(text, min(place + _AT_ONCE, len(text))) if lines else None
        end = last.end() if last else len(text)
        part = text.slice(place, end - place)
        place = end
        if _RETURN.search(part):
            part = pa.py_buffer(part.to_pybytes().replace(b"\r\n", b"\n").replace(b"\r", b"\n"))
        if len(part) >= 2**31:
            raise InputError(f"{file} has a row of more than 2 GB", "divide it")
        ends = _ends(part) if lines else np.asarray([len(part)])
        offsets = np.concatenate([[0], ends]).astype(np.int32)
        rows = pa.StringArray.from_buffers(len(ends), pa.py_buffer(offsets), part)
        rows.validate(full=True)
        yield rows


def _ends(text: pa.Buffer) -> npt.NDArray[np.int64]:
    """The places where the lines end."""
    data = np.frombuffer(text, np.uint8)
    starts = range(0, len(data), _AT_ONCE)
    ends = np.concatenate([np.flatnonzero(data[start : start + _AT_ONCE] == ord("\n")) + start + 1 for start in starts])
    return ends if len(ends) and ends[-1] == len(data) else np.append(ends, len(data))
