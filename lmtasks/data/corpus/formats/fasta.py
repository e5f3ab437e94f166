"""FASTA files: a sequence is a document, its header is none of the text.

What is no residue is refused by its line, and only one sequence at a time is held.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from lmtasks.api import Reading
from lmtasks.errors import InputError

_AT_ONCE = 4 << 20
"""Residues of the sequences that become one table."""

_LONGEST = 2**31 - 1
"""Residues of one sequence: what a string of Arrow can hold."""

_NO_RESIDUE = re.compile(r"[^A-Za-z*.-]")


class FastaError(ValueError):
    """A line that no FASTA file has; its number counts from 1."""

    def __init__(self, line: int, problem: str) -> None:
        super().__init__(problem)
        self.line = line


def read(file: Path, reading: Reading) -> Iterator[pa.Table]:
    """The sequences of a file in order, empty ones included, as the column ``text``."""
    try:
        for rows in _batches(sequences(file)):
            yield pa.table({"text": pa.array(rows, pa.string())})
    except FastaError as error:
        raise InputError(
            f"{reading.name}, line {error.line} is not FASTA: {error}",
            "repair the line; plain text goes into a .txt file",
        ) from error


def sequences(file: Path) -> Iterator[str]:
    """The sequences of a file, as protein and nucleotide models are trained on them.

    The lines of a sequence are joined, without the spaces of those that come in groups of ten. Small letters, which
    mark what is repetitive, become capitals. A ``*`` at the end, which ends a translation, is left out. All else
    stays, gaps (``-`` and ``.``) and a ``*`` on the way included.

    Headers begin with ``>``; lines that begin with ``;`` are comments. They may be in any encoding.

    Yields:
        at least one sequence; one without residues is an empty string.

    Raises:
        FastaError: residues without a header, what is no residue, a sequence that is too long, or no header at all.
    """
    # What is no header is ASCII, or an error; Latin-1 reads any byte.
    with file.open(encoding="latin-1") as lines:
        parts: list[str] | None = None
        size = number = 0
        for number, line in enumerate(lines, start=1):
            line = line.removeprefix("\xef\xbb\xbf") if number == 1 else line
            if line.startswith(">"):
                if parts is not None:
                    yield _joined(parts)
                parts, size = [], 0
            elif (text := "".join(line.split())) and not line.startswith(";"):
                if parts is None:
                    raise FastaError(number, "no header, a line that begins with '>', comes before it")
                if odd := _NO_RESIDUE.search(text):
                    raise FastaError(number, f"{odd[0]!r} is no residue")
                parts.append(text)
                size += len(text)
                if size > _LONGEST:
                    raise FastaError(number, "its sequence has more than two billion residues")
        if parts is None:
            raise FastaError(max(1, number), "there is no header, a line that begins with '>'")
        yield _joined(parts)


def _joined(parts: list[str]) -> str:
    return "".join(parts).upper().removesuffix("*")


def _batches(rows: Iterator[str]) -> Iterator[list[str]]:
    """Rows in lists of about ``_AT_ONCE`` letters."""
    batch: list[str] = []
    size = 0
    for row in rows:
        batch.append(row)
        size += len(row) + 1  # empty ones take room, too
        if size >= _AT_ONCE:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
