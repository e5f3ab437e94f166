"""Sets of rows that take a bit for each row: an index of them would take 64, flags 8."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Flags = npt.NDArray[np.bool_]

_ONES = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(axis=1, dtype=np.uint8)
"""The number of ones in each byte; numpy counts them itself since 2.0 only."""


@dataclass(frozen=True, eq=False)
class RowSet:
    """Some of the rows of a table.

    Args:
        bits: uint8 ``[rows / 8]``, as ``numpy.packbits`` makes them; those after the last row are zero.
        rows: rows of the table.
    """

    bits: npt.NDArray[np.uint8]
    rows: int

    @classmethod
    def of(cls, flags: Flags) -> RowSet:
        """The rows whose flag is set, of as many rows as there are flags."""
        return cls(np.packbits(flags), len(flags))

    @classmethod
    def all(cls, rows: int) -> RowSet:
        """All of so many rows."""
        bits = np.full(-(-rows // 8), 255, np.uint8)
        bits[rows // 8 :] = 256 - (1 << -rows % 8)
        return cls(bits, rows)

    def __len__(self) -> int:
        return int(_ONES[self.bits].sum(dtype=np.int64))

    def __and__(self, other: RowSet) -> RowSet:
        return RowSet(self.bits & other.bits, self.rows)

    def __sub__(self, other: RowSet) -> RowSet:
        return RowSet(self.bits & ~other.bits, self.rows)

    def flags(self, start: int = 0, count: int | None = None) -> Flags:
        """Whether each of so many rows from one on is among them, bool [count]; of all rows when None."""
        count = self.rows - start if count is None else count
        packed = self.bits[start // 8 : -(-(start + count) // 8)]
        return np.unpackbits(packed)[start % 8 :][:count].view(np.bool_)

    def where(self, flags: Flags) -> RowSet:
        """Those of its rows whose flag is set, bool [len(self)]."""
        wanted = self.flags()
        wanted[wanted] = flags
        return RowSet.of(wanted)

    def before(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """How many of them come before each of some rows, int64 of the same shape."""
        whole, rest = np.divmod(rows, 8)
        counts = np.concatenate([[0], np.cumsum(_ONES[self.bits], dtype=np.int64)])
        # The first row of eight is the highest bit. No bit of a byte that there is not comes before a row.
        last = self.bits[np.minimum(whole, len(self.bits) - 1)].astype(np.int64)
        return np.asarray(counts[whole] + _ONES[last >> (8 - rest)], np.int64)
