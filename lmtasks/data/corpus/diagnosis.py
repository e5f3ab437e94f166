"""Why a data file cannot be read: datasets says that something failed, not in which file or where."""

from __future__ import annotations

import codecs
import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet

from lmtasks.data.corpus import sound_json
from lmtasks.data.corpus.columns import bad_row
from lmtasks.data.corpus.fasta import FastaError, sequences
from lmtasks.data.corpus.sound_json import bad_line
from lmtasks.errors import InputError, first_line

_BLOCK = 1 << 20
# Cells that are looked at to tell the type of a CSV column.
_CSV_HEAD = 10_000


def explain(name: Path, content: Path, kind: str, first: Path) -> None:
    """Raises what is wrong with a file, if anything is.

    Args:
        name: the file as the user knows it.
        content: the path to read.
        first: content of the first file of the same format, whose columns the others must have.

    Raises:
        InputError: names the file and the place in it.
    """
    if kind in ("parquet", "arrow"):
        _explain_table(name, content, kind)
    elif kind == "fasta":
        _explain_fasta(name, content)
    else:
        _explain_encoding(name, content)
        if kind == "json":
            _explain_json(name, content)
        elif kind in ("csv", "tsv"):
            _explain_csv(name, content, kind, first)


def explain_json_cell(name: Path, content: Path, path: Sequence[str]) -> None:
    """Raises which row of a JSON file, counting from 1, holds something else than text, if any does."""
    for number, row in enumerate(_json_rows(content), start=1):
        if not _is_text_value(row, path):
            raise bad_row(path, name, number, "a value that is not text")


def table(content: Path, kind: str) -> tuple[pa.Schema, Iterable[pa.RecordBatch]]:
    """Columns and rows of a parquet or arrow file."""
    if kind == "parquet":
        parquet = pa.parquet.ParquetFile(content)
        return parquet.schema_arrow, parquet.iter_batches()
    source = pa.memory_map(str(content))
    try:
        stream = pa.ipc.open_stream(source)
        return stream.schema, stream
    except pa.ArrowInvalid:
        file = pa.ipc.open_file(source)
        return file.schema, map(file.get_batch, range(file.num_record_batches))


def csv_schema(name: Path, content: Path, kind: str) -> pa.Schema:
    """Names and types of the columns of a CSV or TSV file, from its header and first rows.

    Raises:
        InputError: the file cannot be read, has no rows, or rows with more cells than the header.
    """
    import pandas

    try:
        # Where the first row has more cells than the header, pandas makes an index of the surplus and
        # shifts the columns without a word. Reading the header as a row makes that an error.
        next(_csv_chunks(content, kind, header=None, nrows=2))
        head = next(_csv_chunks(content, kind))
    except (pandas.errors.ParserError, pandas.errors.EmptyDataError, UnicodeDecodeError, StopIteration) as error:
        _explain_encoding(name, content)
        raise empty(name) if isinstance(error, StopIteration) else _csv_error(name, error, kind) from error
    if not len(head):
        raise empty(name, "has a header and no rows")
    return pa.Schema.from_pandas(head, preserve_index=False)


def csv_options(kind: str) -> dict[str, Any]:
    """Options for pandas, the same for loading and for a search of what is wrong, so that the same files fail.

    Left alone, pandas reads ``NA`` and ``None`` as nothing.
    """
    # A quotation mark in a tsv file is one: such files put nothing into quotes, and have no line breaks in cells.
    how = {"sep": "\t", "quoting": csv.QUOTE_NONE} if kind == "tsv" else {"sep": ","}
    return {**how, "encoding": "utf-8-sig", "keep_default_na": False}


def empty(name: Path, what: str = "is empty") -> InputError:
    """The error of a file without a row."""
    return InputError(f"{name} {what}", "leave it out, or give a file with text")


def _explain_encoding(name: Path, content: Path) -> None:
    decoder = codecs.getincrementaldecoder("utf-8")()
    size = 0
    try:
        for block in _blocks(content):
            size += len(block)
            decoder.decode(block, final=not block)
    except UnicodeDecodeError as error:
        # Its object begins with what the decoder had kept of an incomplete character.
        raise _not_utf8(name, content, size - len(error.object) + error.start) from error
    if size <= len(codecs.BOM_UTF8) and content.read_bytes() in (b"", codecs.BOM_UTF8):
        raise empty(name)


def _blocks(content: Path) -> Iterator[bytes]:
    """The bytes of a file, block by block; the last block is empty."""
    with content.open("rb") as stream:
        yield from iter(lambda: stream.read(_BLOCK), b"")
    yield b""


def _not_utf8(name: Path, content: Path, offset: int) -> InputError:
    start = next(_blocks(content))
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return InputError(f"{name} is UTF-16, not UTF-8", f"iconv -f UTF-16 -t UTF-8 {name} > NEW_FILE")
    what = "a binary file" if b"\0" in start else "not valid UTF-8"
    return InputError(
        f"{name} is {what}: byte {offset} starts no character", "convert text: iconv -f LATIN1 -t UTF-8 FILE > NEW_FILE"
    )


def _explain_json(name: Path, content: Path) -> None:
    """Lines of objects, or one value over the whole file; datasets takes either under either name."""
    first = True
    with content.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                value = sound_json.loads(line)
            except ValueError as error:
                if first and (content.suffix.lower() == ".json" or line.lstrip().startswith("[")):
                    _explain_whole(name, content)
                    return
                # The error counts lines within this one line; only its words and column mean something.
                problem = f"{error.msg} in column {error.colno}" if isinstance(error, json.JSONDecodeError) else error
                raise bad_line(name, number, problem) from error
            if not isinstance(value, dict) and not (first and isinstance(value, list)):
                raise bad_line(name, number, f"a {type(value).__name__}, not an object")
            first = False
    if first:
        raise empty(name, "has no rows")


def _explain_whole(name: Path, content: Path) -> None:
    try:
        sound_json.loads(content.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise bad_line(name, error.lineno, error.msg) from error
    except ValueError as error:
        raise InputError(f"{name} cannot be read: {error}", "repair the file") from error


def _json_rows(content: Path) -> Iterator[Any]:
    with content.open(encoding="utf-8-sig") as lines:
        whole = next(filter(str.strip, lines), "").lstrip().startswith("[")
        lines.seek(0)
        if whole:
            yield from json.load(lines)
            return
        try:
            yield from (json.loads(line) for line in lines if line.strip())
        except ValueError:
            # One object over several lines.
            lines.seek(0)
            yield json.load(lines)


def _is_text_value(value: Any, path: Sequence[str]) -> bool:
    """Whether a JSON value holds text, or nothing, at the end of a path."""
    if value is None:
        return True
    if isinstance(value, list):
        return all(_is_text_value(item, path) for item in value)
    if path:
        return isinstance(value, dict) and _is_text_value(value.get(path[0]), path[1:])
    return isinstance(value, str)


def _explain_csv(name: Path, content: Path, kind: str, first: Path) -> None:
    import pandas

    expected, given = csv_schema(first, first, kind).names, csv_schema(name, content, kind).names
    missing = [column for column in expected if column not in given]
    if missing:
        raise InputError(f"{name} lacks the column '{missing[0]}' of the other files", "give files of the same columns")
    try:
        for _ in _csv_chunks(content, kind):
            pass
    except pandas.errors.ParserError as error:
        raise _csv_error(name, error, kind) from error


def _csv_chunks(content: Path, kind: str, **options: Any) -> Iterator[Any]:
    import pandas

    with pandas.read_csv(content, chunksize=_CSV_HEAD, **options, **csv_options(kind)) as chunks:
        yield from chunks


def _explain_fasta(name: Path, content: Path) -> None:
    try:
        for _ in sequences(content):
            pass
    except FastaError as error:
        raise InputError(
            f"{name}, line {error.line} is not FASTA: {error}", "repair the line; plain text goes into a .txt file"
        ) from error


def _explain_table(name: Path, content: Path, kind: str) -> None:
    try:
        _, batches = table(content, kind)
        rows = sum(batch.num_rows for batch in batches)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{name} is not a {kind} file, or damaged: {first_line(error)}", "fetch it again") from error
    if not rows:
        raise empty(name, "has no rows")


def _csv_error(name: Path, error: Exception, kind: str) -> InputError:
    quoted = "quote cells that contain the separator or a line break"
    hint = "take tabs and line breaks out of the cells, or write csv" if kind == "tsv" else quoted
    return InputError(f"{name} cannot be read: {' '.join(str(error).split())}", hint)
