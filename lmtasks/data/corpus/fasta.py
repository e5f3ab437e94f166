"""FASTA files: a sequence is a document, its header is none of the text.

The FASTA builder of ``datasets`` takes anything for residues, overlooks what stands before the first header, and
holds records by the quarter of a gigabyte.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets.builder import Key
from datasets.packaged_modules.text.text import Text

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


class Fasta(Text):
    """Yields sequences in order, empty ones included, in the column ``text``."""

    def _generate_tables(self, base_files: Any, files_iterables: Any) -> Iterator[tuple[Any, pa.Table]]:
        for shard, files in enumerate(files_iterables):
            for file in files:
                for number, rows in enumerate(_batches(sequences(Path(file)))):
                    yield Key(shard, number), pa.table({"text": pa.array(rows, pa.string())})


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
