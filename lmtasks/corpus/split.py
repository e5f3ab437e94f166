"""One split of a corpus: rows of text, read lazily in Arrow batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from itertools import pairwise

import datasets
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lmtasks.corpus.columns import first_mixed, strings
from lmtasks.errors import InputError

# Rows may be whole books: a batch ends at this many bytes of text even if it has few rows.
_BATCH_BYTES = 16 << 20


@dataclass(frozen=True, eq=False)
class Split:
    """Documents of one split.

    Args:
        rows: the rows; only the text column is needed.
        column: path of the text column, such as ``("answers", "text")``.
        documents: True: every row is a document. False: rows are lines of a running text, line breaks included.
        blank: how many rows were left out because they hold nothing but white space.
    """

    rows: datasets.Dataset
    column: tuple[str, ...]
    documents: bool
    blank: int = 0

    def __len__(self) -> int:
        return len(self.rows)

    def texts(self, batch_size: int = 1000) -> Iterator[list[str]]:
        """The texts in order, lists joined with a space.

        Args:
            batch_size: the most rows in a batch. Batches of long texts have fewer, so that memory stays bounded.

        Yields:
            Lists of one string per row, never empty.
        """
        for array in _arrays(self.rows, self.column, batch_size):
            yield from (part.to_pylist() for part in _portions(array))

    @cached_property
    def hashes(self) -> npt.NDArray[np.uint64]:
        """One 64-bit hash per row, of its exact text; the same in every process and on every machine.

        Reads all texts on first use, in bounded batches; afterwards it is kept: 8 bytes per row, read-only.

        Returns:
            uint64 ``[rows]``.
        """
        # Joined batch by batch: a digest as a Python object takes five times its eight bytes.
        digests = b"".join(b"".join(map(_digest, batch)) for batch in self.texts())
        return np.frombuffer(digests, "<u8")

    @cached_property
    def fingerprint(self) -> str:
        """32 hex digits for the text of all rows, their order, and whether they are documents or lines.

        Where the text comes from, and how many blank rows were left out, makes no difference. Reads all texts on
        first use, as ``hashes`` does.
        """
        kind = b"documents" if self.documents else b"lines"
        return blake2b(self.hashes.data, digest_size=16, person=kind).hexdigest()


def text_flags(rows: datasets.Dataset, column: tuple[str, ...], source: str) -> npt.NDArray[np.bool_]:
    """Whether each row holds more than white space.

    Reads everything once: a bad row must stop the run here, not hours later.

    Raises:
        InputError: a null or a value that is not text; names the first such row, counting from 1.
    """
    flags: list[npt.NDArray[np.bool_]] = []
    seen = 0
    for array in _arrays(rows, column, 1000, source):
        if (invalid := _first_invalid(array)) is not None:
            raise _bad_row(column, source, seen + invalid, "text that is not valid UTF-8")
        if array.null_count:
            raise _bad_row(column, source, seen + pc.index(array.is_null(), True).as_py(), "no text (null)")
        blank = pc.or_(pc.equal(pc.binary_length(array), 0), pc.utf8_is_space(array))
        flags.append(~blank.to_numpy(zero_copy_only=False))
        seen += len(array)
    return np.concatenate([np.zeros(0, bool), *flags])


def _digest(text: str) -> bytes:
    return blake2b(text.encode(), digest_size=8).digest()


def _arrays(
    rows: datasets.Dataset, column: tuple[str, ...], batch_size: int, source: str = "the data"
) -> Iterator[pa.Array]:
    """String arrays of at most ``batch_size`` rows."""
    seen = 0
    for table in rows.select_columns([column[0]]).with_format("arrow").iter(batch_size):
        for chunk in _chunks(table.column(0)):
            if isinstance(chunk, pa.ExtensionArray) and (mixed := first_mixed(chunk)) is not None:
                raise _bad_row(column, source, seen + mixed, "a value that is not text")
            seen += len(chunk)
            yield strings(chunk, column[1:])


def _chunks(cells: pa.ChunkedArray) -> list[pa.Array]:
    """The chunks of a batch, joined if they are small."""
    # Of selected rows, each is a chunk of its own, and Arrow's cost per chunk is many times that of a short row. Large
    # chunks stay apart: joined they could pass Arrow's 2 GB.
    joinable = cells.num_chunks > 1 and _size(cells) <= _BATCH_BYTES
    return [pa.concat_arrays(cells.chunks)] if joinable else list(cells.chunks)


def _size(cells: pa.ChunkedArray) -> int:
    """About how many bytes the cells take."""
    if pa.types.is_string(cells.type) or pa.types.is_large_string(cells.type):
        # ``nbytes`` asks chunk by chunk, which takes longer than all else that happens to a short row.
        return int(pc.sum(pc.binary_length(cells), min_count=0).as_py())
    return int(cells.nbytes)


def _first_invalid(array: pa.Array) -> int | None:
    """Index of the first string that is not UTF-8, if any: readers of JSON and parquet do not look."""
    try:
        array.validate(full=True)
    except pa.ArrowInvalid:
        valid = (_is_utf8(cell.as_buffer()) for cell in array)
        return next((index for index, is_utf8 in enumerate(valid) if not is_utf8), None)
    return None


def _is_utf8(cell: pa.Buffer | None) -> bool:
    try:
        cell is None or bytes(cell).decode()
    except UnicodeDecodeError:
        return False
    return True


def _portions(array: pa.Array) -> Iterator[pa.Array]:
    """The array in slices of about ``_BATCH_BYTES``."""
    ends = np.cumsum(pc.binary_length(array).to_numpy(zero_copy_only=False), dtype=np.int64)
    cuts = np.flatnonzero(np.diff(ends // _BATCH_BYTES)) + 1
    for start, end in pairwise([0, *cuts.tolist(), len(array)]):
        if end > start:
            yield array.slice(start, end - start)


def _bad_row(column: tuple[str, ...], source: str, index: int, what: str) -> InputError:
    return InputError(
        f"row {index + 1} of {source} has {what} in column '{'.'.join(column)}'",
        "remove or repair such rows, or name another column with --text_column",
    )
