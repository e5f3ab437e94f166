"""CSV and TSV: tables of cells, whose separator, quotes and header nobody has written down.

What a file leaves open is settled where only one answer is possible, and refused where there are several. Each row
that is in the file comes out, with as many cells as the header has; cells stay as they are written.
"""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa

from lmtasks.api import NUMBER, Reading
from lmtasks.errors import InputError

_AT_ONCE = 4 << 20
"""Characters of the cells that become one table."""

_HEAD = 200
"""Rows by which a separator is known."""

_SAMPLE = 10_000
"""Rows by which it is known whether a column holds numbers."""

_SEPARATORS = (",", ";", "\t", "|")
_WORDS = {"\t": "tab", "\\t": "\t", "tab": "\t"}
_DECLARED = re.compile(r"sep=(.)\r?\n?\Z", re.IGNORECASE)


@dataclass(frozen=True)
class _Dialect:
    """How a file is to be read.

    Args:
        skipped: lines before the first row.
    """

    separator: str
    quotes: bool
    skipped: int = 0

    def rows(self, stream: TextIO, name: str) -> Iterator[tuple[int, list[str]]]:
        """The rows of a file, each with the number of the line that it ends in; without empty lines."""
        for _ in range(self.skipped):
            stream.readline()
        how: dict[str, Any] = {"strict": True} if self.quotes else {"quoting": csv.QUOTE_NONE}
        reader = csv.reader(stream, delimiter=self.separator, **how)
        try:
            yield from ((reader.line_num + self.skipped, row) for row in reader if row)
        except csv.Error as error:
            quotes = "--csv_quoting none, if a quotation mark is one and nothing more"
            raise InputError(
                f"{name} cannot be read: {error} in the row that ends in line {reader.line_num + self.skipped}",
                quotes if self.quotes else "--csv_quoting minimal, if cells are in quotation marks",
            ) from error


def read_csv(file: Path, reading: Reading) -> Iterator[pa.Table]:
    """The cells of a CSV file as text, by the names in its header."""
    return _read(file, reading, separator=None, quotes=True)


def read_tsv(file: Path, reading: Reading) -> Iterator[pa.Table]:
    """The cells of a TSV file: separated by tabs; a quotation mark is one, and a row is a line."""
    return _read(file, reading, separator="\t", quotes=False)


def _read(file: Path, reading: Reading, separator: str | None, quotes: bool) -> Iterator[pa.Table]:
    csv.field_size_limit(2**31 - 1)
    dialect = _dialect(file, reading, separator, quotes)
    with file.open(encoding="utf-8-sig", newline="") as stream:
        full = _full(dialect.rows(stream, reading.name), reading, dialect)
        first = next(full, None)
        if first is None:
            raise InputError(f"{reading.name} has no rows", "leave it out, or give a file with text")
        head = [*itertools.islice(full, _SAMPLE)]
        numbers = [_are_numbers([row[at] for row in head]) for at in range(len(first))]
        names = _header(first, numbers, reading)
        if names is None:
            names, head = _numbered(first), [first, *head]
        if not head:
            raise InputError(f"{reading.name} has a header and no rows", "leave it out, or give a file with text")
        # A column of numbers is no text, although every cell could be taken for some.
        kinds = [pa.int64() if number else pa.string() for number in numbers]
        wanted = reading.columns(pa.schema([*zip(names, kinds, strict=True)]))
        places = {name: names.index(name) for name in wanted}
        for batch in _batches(itertools.chain(head, full)):
            yield pa.table({name: pa.array([row[at] for row in batch], pa.string()) for name, at in places.items()})


def _full(rows: Iterator[tuple[int, list[str]]], reading: Reading, dialect: _Dialect) -> Iterator[list[str]]:
    """The rows, all of which have as many cells as the first."""
    cells = None
    for line, row in rows:
        cells = cells or len(row)
        if len(row) != cells:
            quote = "quote cells that hold the separator or a line break"
            split = "take tabs and line breaks out of the cells"
            raise InputError(
                f"{reading.name} cannot be read: the row in line {line} has {len(row)} cells, the first one {cells}",
                f"{quote if dialect.quotes else split}; or --csv_separator, --csv_quoting",
            )
        yield row


def _batches(rows: Iterator[list[str]]) -> Iterator[list[list[str]]]:
    batch: list[list[str]] = []
    size = 0
    for row in rows:
        batch.append(row)
        size += sum(map(len, row)) + 64
        if size >= _AT_ONCE:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _dialect(file: Path, reading: Reading, separator: str | None, quotes: bool) -> _Dialect:
    """The way to read a file: as somebody said, as its first line says, or as alone is possible."""
    settings = reading.settings
    quotes = quotes if settings.csv_quoting is None else settings.csv_quoting == "minimal"
    with file.open(encoding="utf-8-sig", newline="") as stream:
        declared = _DECLARED.match(stream.readline())
    skipped = 1 if declared else 0
    if settings.csv_separator is not None:
        return _Dialect(_sign(settings.csv_separator), quotes, skipped)
    if declared:
        return _Dialect(declared[1], quotes, skipped)
    return _Dialect(separator or _separator(file, reading, quotes), quotes)


def _sign(named: str) -> str:
    """The separator that somebody named.

    Raises:
        InputError: no cells can be parted by it.
    """
    sign = _WORDS.get(named, named)
    if len(sign) != 1 or sign in '\r\n"':
        raise InputError(f"--csv_separator cannot be {named!r}: it is one character", "such as --csv_separator ';'")
    return sign


def _separator(file: Path, reading: Reading, quotes: bool) -> str:
    """A comma where every row can be parted by it, or by nothing else; else what parts all rows alike."""
    fitting = [sign for sign in _SEPARATORS if _fits(file, sign, quotes)]
    if "," in fitting or not fitting:
        return ","
    if len(fitting) > 1:
        words = " and ".join(f"'{_WORDS.get(sign, sign)}'" for sign in fitting)
        raise InputError(
            f"cannot tell what separates the cells of {reading.name}: {words} both do",
            f"--csv_separator '{_WORDS.get(fitting[0], fitting[0])}', or the other one",
        )
    return fitting[0]


def _fits(file: Path, sign: str, quotes: bool) -> bool:
    """Whether the first rows all have equally many cells, two or more, if that sign separates them."""
    with file.open(encoding="utf-8-sig", newline="") as stream:
        try:
            rows = [*itertools.islice(_Dialect(sign, quotes).rows(stream, ""), _HEAD)]
        except InputError:
            return False
    return len({len(row) for _, row in rows}) == 1 and len(rows[0][1]) > 1


def _header(first: Sequence[str], numbers: Sequence[bool], reading: Reading) -> list[str] | None:
    """The names of the columns, if the first row has them; None if it is a row like any other.

    Args:
        numbers: whether each column has nothing but numbers below.

    Raises:
        InputError: it may be either.
    """
    settings = reading.settings
    if settings.csv_header is False:
        return None
    # pandas writes no name above its index.
    first = [cell if cell.strip() else f"column_{at}" for at, cell in enumerate(first, start=1)]
    if len({*first}) < len(first):
        double = next(name for name in first if first.count(name) > 1)
        raise InputError(f"{reading.name} has two columns named '{double[:80]}'", _HOW)
    odd = next((cell for cell in first if not _is_name(cell)), None)
    known = {cell.strip().lower() for cell in first} & _NAMES
    if settings.csv_header or (odd is None and (known or any(numbers) or settings.text_column)):
        return [*first]
    shown = first[0] if odd is None else odd
    raise InputError(f"cannot tell whether {reading.name} has a header: its first row has '{shown[:80]}'", _HOW)


_HOW = "--csv_header true if the first row names the columns, --csv_header false if not"

_NAMES = frozenset(
    re.findall(
        r"\w+",
        "text body content document article sentence paragraph title abstract summary question answer prompt response "
        "completion instruction input output review comment post tweet message description caption source target "
        "label id idx index name lang language url date category score context story",
    )
)
"""Names that columns of text, and those beside them, usually have; a first row with one of them is a header."""


def _is_name(cell: str) -> bool:
    """Whether a cell can be the name of a column: a few words that are no number and no sentence."""
    words = cell.split()
    return (
        0 < len(words) <= 4
        and len(cell) <= 60
        and not NUMBER.fullmatch(cell.strip())
        and not re.search(r"[.!?…。！？]\s*\Z|[\"\n]", cell)
    )


def _numbered(first: Sequence[str]) -> list[str]:
    """Names for the columns of a file without a header."""
    return ["text"] if len(first) == 1 else [f"column_{number}" for number in range(1, len(first) + 1)]


def _are_numbers(cells: Sequence[str]) -> bool:
    filled = [cell for cell in cells if cell.strip()]
    return bool(filled) and all(NUMBER.fullmatch(cell.strip()) for cell in filled)
