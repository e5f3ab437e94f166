"""One split of a corpus: rows of documents; text is read lazily in Arrow batches."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from itertools import pairwise
from typing import Any

import datasets
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lmtasks.data.corpus.columns import bad_row, first_mixed, strings
from lmtasks.data.corpus.formats.text import BEGINS
from lmtasks.data.corpus.row_set import RowSet
from lmtasks.errors import InputError

BATCH_BYTES = min(os.cpu_count() or 1, 32) << 15
"""Bytes of text that are worked on at once: enough for every thread of a tokenizer, and no more than caches hold."""

_READ_ROWS = 1 << 14
_READ_BYTES = 1 << 20


@dataclass(frozen=True, eq=False)
class Split:
    """Documents of one split.

    Args:
        rows: the rows; only the column of the documents is needed.
        column: path of that column, such as ``("answers", "text")``.
        documents: True: every row is a document. False: rows are lines of a running text, line breaks included.
        blank: how many rows were left out because they hold nothing.
        chosen: the rows that belong to the split; None for all of them.
        dropped: how many rows were left out because somebody did not want them, by the setting that says so.
        begins: int64, the rows with which texts begin, where rows are lines: a file is a text of its own.
    """

    rows: datasets.Dataset
    column: tuple[str, ...]
    documents: bool
    blank: int = 0
    # Not rows that were selected from the dataset: Arrow hands such rows out one by one.
    chosen: RowSet | None = None
    dropped: Mapping[str, int] = field(default_factory=dict)
    begins: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(1, np.int64))

    def __len__(self) -> int:
        return len(self.rows if self.chosen is None else self.chosen)

    def numbers(self) -> npt.NDArray[np.int64]:
        """The numbers of the rows that belong to the split, in order."""
        return np.arange(len(self.rows)) if self.chosen is None else np.flatnonzero(self.chosen.flags())

    def arrays(self, start: int = 0, batch_size: int = _READ_ROWS) -> Iterator[pa.Array]:
        """The texts in order, as Arrow's string arrays, lists joined with a space.

        Args:
            start: leave out so many rows.
            batch_size: the most rows in an array.

        Yields:
            Arrays of about ``BATCH_BYTES``, never empty. A row that has more is an array of its own.
        """
        for array in _arrays(self.rows, self.column, batch_size, chosen=self.chosen):
            if start < len(array):
                yield array.slice(start)
            start = max(0, start - len(array))

    def texts(self, batch_size: int = 1000) -> Iterator[list[str]]:
        """The texts in order, in lists of at most ``batch_size``, as bounded as :meth:`arrays`."""
        for array in self.arrays(batch_size=batch_size):
            yield array.to_pylist()

    def running(self, start: int = 0) -> Iterator[tuple[int, pa.Array]]:
        """The lines from a row on, in arrays as bounded as :meth:`arrays`, each with the number of its text."""
        for array in self.arrays(start):
            first, last = np.searchsorted(self.text_starts, [start, start + len(array)], side="right")
            cuts = [0, *(self.text_starts[first:last] - start).tolist(), len(array)]
            for number, (begin, end) in enumerate(pairwise(cuts), int(first) - 1):
                if end > begin:
                    yield number, array.slice(begin, end - begin)
            start += len(array)

    def running_texts(self) -> Iterator[list[str]]:
        """As :meth:`texts`, but lines of one text that are read together are one."""
        if self.documents:
            yield from self.texts()
        else:
            yield from ([joined(array)] for _, array in self.running())

    @cached_property
    def text_starts(self) -> npt.NDArray[np.int64]:
        """The numbers, among the rows of the split, of the lines with which texts begin, int64 [texts]."""
        if self.chosen is None:
            return self.begins
        before = self.chosen.before(self.begins)
        return np.unique(before[before < len(self)])

    @cached_property
    def fingerprint(self) -> str:
        """32 hex digits for the text of all rows, their order, and whether they are documents or lines.

        Where the text comes from, and how many blank rows were left out, makes no difference.
        """
        kind = b"documents" if self.documents else b"lines"
        # Apart, both are the same however the rows are batched; together they say where each row ends.
        texts, lengths = blake2b(digest_size=16, person=kind), blake2b(digest_size=16)
        for array in self.arrays():
            texts.update(utf8(array))
            lengths.update(pc.binary_length(array).to_numpy(zero_copy_only=False).astype("<i8").data)
        texts.update(lengths.digest())
        if not self.documents:
            texts.update(self.text_starts.astype("<i8").data)
        return texts.hexdigest()


def without_begins(rows: datasets.Dataset) -> tuple[datasets.Dataset, npt.NDArray[np.int64]]:
    """Rows without the column that says where texts begin, and the numbers of these rows; the first where none says."""
    if BEGINS not in rows.column_names:
        return rows, np.zeros(1, np.int64)
    begins = [np.zeros(1, np.int64)]  # also of what a slice leaves of a text
    for number, part in enumerate(rows.select_columns([BEGINS]).with_format("arrow").iter(_READ_ROWS)):
        begins.append(np.flatnonzero(part.column(0).to_numpy()) + number * _READ_ROWS)
    return rows.remove_columns(BEGINS), np.unique(np.concatenate(begins))


def utf8(array: pa.Array) -> memoryview:
    """The texts of a string array, one after the other, where they lie in memory."""
    offsets, data = array.buffers()[1:]
    if data is None:  # nothing but empty texts
        return memoryview(b"")
    kind = np.int64 if pa.types.is_large_string(array.type) else np.int32
    ends = np.frombuffer(offsets, kind)[array.offset : array.offset + len(array) + 1]
    return memoryview(data).cast("B")[ends[0] : ends[-1]]


def joined(array: pa.Array) -> str:
    """The texts of a string array, one after the other, as one."""
    return str(utf8(array), "utf-8")


def text_flags(rows: datasets.Dataset, column: tuple[str, ...], source: str) -> npt.NDArray[np.bool_]:
    """Whether each row holds more than white space.

    Reads everything once: a bad row must stop the run here, not hours later.

    Raises:
        InputError: no row does, or one has a null or a value that is not text; names the first such row.
    """
    flags = np.zeros(len(rows), np.bool_)
    seen = 0
    for array in _arrays(rows, column, _READ_ROWS, source):
        if (invalid := _first_invalid(array)) is not None:
            raise bad_row(column, source, seen + invalid + 1, "text that is not valid UTF-8")
        if array.null_count:
            raise bad_row(column, source, seen + pc.index(array.is_null(), True).as_py() + 1, "no text (null)")
        blank = pc.or_(pc.equal(pc.binary_length(array), 0), pc.utf8_is_space(array))
        flags[seen : seen + len(array)] = ~blank.to_numpy(zero_copy_only=False)
        seen += len(array)
    if not flags.any():
        raise InputError(f"{source} holds nothing but white space in {len(flags)} rows", "give data with text")
    return flags


def _arrays(
    rows: datasets.Dataset,
    column: tuple[str, ...],
    batch_size: int,
    source: str = "the data",
    chosen: RowSet | None = None,
) -> Iterator[pa.Array]:
    """String arrays of at most ``batch_size`` rows and about ``BATCH_BYTES``, never empty."""
    seen = 0
    for table in rows.select_columns([column[0]]).with_format("arrow").iter(batch_size):
        for cells in _portions(table.column(0), _READ_BYTES):
            # Rows that somebody selected from a dataset are a chunk each.
            chunk = cells.chunk(0) if cells.num_chunks == 1 else pa.concat_arrays(cells.chunks)
            if isinstance(chunk, pa.ExtensionArray) and (mixed := first_mixed(chunk)) is not None:
                raise bad_row(column, source, seen + mixed + 1, "a value that is not text")
            kept = None if chosen is None else chosen.flags(seen, len(chunk))
            seen += len(chunk)
            if kept is not None and not kept.all():  # what is kept whole need not be copied
                chunk = chunk.filter(kept)
            yield from _portions(strings(chunk, column[1:]), BATCH_BYTES)


def _portions(cells: Any, most: int) -> Iterator[Any]:
    """An array, chunked or not, in slices of about so many bytes; a row that has more is alone."""
    lengths = _sizes(cells)
    cuts = np.flatnonzero((np.diff(np.cumsum(lengths) // most) > 0) | (lengths[:-1] >= most)) + 1
    for start, end in pairwise([0, *cuts.tolist(), len(cells)]):
        if end > start:
            yield cells.slice(start, end - start)


def _sizes(cells: Any) -> npt.NDArray[np.int64]:
    """The bytes of each cell; of nested ones their mean."""
    if pa.types.is_string(cells.type) or pa.types.is_large_string(cells.type):
        return np.asarray(pc.fill_null(pc.binary_length(cells), 0).to_numpy(), np.int64)
    return np.full(len(cells), cells.nbytes // max(len(cells), 1), np.int64)


def _first_invalid(array: pa.Array) -> int | None:
    """Index of the first string that is not UTF-8, if any: readers of JSON and parquet do not look."""
    if _is_utf8(array):
        return None
    return next((index for index in range(len(array)) if not _is_utf8(array.slice(index, 1))), None)


def _is_utf8(array: pa.Array) -> bool:
    try:
        array.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True
