"""Why a data file cannot be read: datasets says that something failed, not in which file or where."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet

from lmtasks.data.corpus.fasta import FastaError, sequences
from lmtasks.errors import InputError, first_line

_BLOCK = 1 << 20
# Cells that are looked at to tell the type of a CSV column.
_CSV_HEAD = 10_000


def explain(name: Path, content: Path, kind: str, first: Path) -> None:
    """Raises what is wrong with a file, if anything is.

    Args:
        name: the file as the user knows it.
        content: the path to read.
        kind: its format.
        first: content of the first file of the same format, whose columns the others must have.

    Raises:
        InputError: names the file and the place in it.
    """
    if kind == "parquet":
        _explain_parquet(name, content)
    elif kind == "arrow":
        _explain_arrow(name, content)
    elif kind == "fasta":
        _explain_fasta(name, content)
    else:
        _explain_encoding(name, content)
        if kind == "json":
            _explain_json(name, content)
        elif kind in ("csv", "tsv"):
            _explain_csv(name, content, kind, first)


def explain_json_cell(name: Path, content: Path, path: Sequence[str]) -> None:
    """Raises which row of a JSON file holds something else than text, if any does.

    Raises:
        InputError: names the row, counting from 1.
    """
    for number, row in enumerate(_json_rows(content), start=1):
        if not _is_text_value(row, path):
            raise InputError(
                f"row {number} of {name} has a value that is not text in column '{'.'.join(path)}'",
                "remove or repair such rows, or name another column with --text_column",
            )


def table_schema(content: Path, kind: str) -> pa.Schema:
    """Columns of a parquet or arrow file."""
    if kind == "parquet":
        return pa.parquet.read_schema(content)
    with pa.memory_map(str(content)) as source:
        try:
            return pa.ipc.open_stream(source).schema
        except pa.ArrowInvalid:
            return pa.ipc.open_file(source).schema


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
        raise _csv_error(name, error) from error
    if not len(head):
        raise _empty(name, "has a header and no rows")
    return pa.Schema.from_pandas(head, preserve_index=False)


def _explain_encoding(name: Path, content: Path) -> None:
    decoder = codecs.getincrementaldecoder("utf-8")()
    position = pending = 0
    try:
        for block in _blocks(content):
            # What the decoder keeps of an incomplete character counts into the next error's position.
            pending = len(decoder.getstate()[0])
            decoder.decode(block)
            position += len(block)
        pending = len(decoder.getstate()[0])
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise _not_utf8(name, content, position - pending + error.start) from error
    if position <= len(codecs.BOM_UTF8) and content.read_bytes() in (b"", codecs.BOM_UTF8):
        raise _empty(name)


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
                value = json.loads(line)
            except ValueError as error:
                if first and (content.suffix.lower() == ".json" or line.lstrip().startswith("[")):
                    return _explain_whole(name, content)
                # The error counts lines within this one line; only its words and column mean something.
                problem = f"{error.msg} in column {error.colno}" if isinstance(error, json.JSONDecodeError) else error
                raise _bad_line(name, number, problem) from error
            if not isinstance(value, dict) and not (first and isinstance(value, list)):
                raise _bad_line(name, number, f"a {type(value).__name__}, not an object")
            first = False
    if first:
        raise _empty(name, "has no rows")
    return None


def _json_rows(content: Path) -> Iterator[Any]:
    with content.open(encoding="utf-8-sig") as lines:
        if next(filter(str.strip, lines), "").lstrip().startswith("["):
            lines.seek(0)
            yield from json.load(lines)
            return
        lines.seek(0)
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


def _explain_whole(name: Path, content: Path) -> None:
    try:
        json.loads(content.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise _bad_line(name, error.lineno, error.msg) from error


def _explain_csv(name: Path, content: Path, kind: str, first: Path) -> None:
    import pandas

    expected = csv_schema(first, first, kind).names
    missing = [column for column in expected if column not in csv_schema(name, content, kind).names]
    if missing:
        raise InputError(f"{name} lacks the column '{missing[0]}' of the other files", "give files of the same columns")
    try:
        for _ in _csv_chunks(content, kind):
            pass
    except pandas.errors.ParserError as error:
        raise _csv_error(name, error) from error


def _explain_fasta(name: Path, content: Path) -> None:
    try:
        for _ in sequences(content):
            pass
    except FastaError as error:
        raise InputError(
            f"{name}, line {error.line} is not FASTA: {error}", "repair the line; plain text goes into a .txt file"
        ) from error


def _explain_parquet(name: Path, content: Path) -> None:
    try:
        with pa.parquet.ParquetFile(content) as file:
            rows = sum(batch.num_rows for batch in file.iter_batches())
    except (pa.ArrowException, OSError) as error:
        raise _damaged(name, "parquet", error) from error
    if not rows:
        raise _empty(name, "has no rows")


def _explain_arrow(name: Path, content: Path) -> None:
    try:
        with pa.memory_map(str(content)) as source:
            rows = sum(batch.num_rows for batch in _arrow_batches(source))
    except (pa.ArrowException, OSError) as error:
        raise _damaged(name, "arrow", error) from error
    if not rows:
        raise _empty(name, "has no rows")


def _arrow_batches(source: pa.NativeFile) -> Iterator[pa.RecordBatch]:
    try:
        reader = pa.ipc.open_stream(source)
    except pa.ArrowInvalid:
        file = pa.ipc.open_file(source)
        return (file.get_batch(index) for index in range(file.num_record_batches))
    return iter(reader)


def _csv_chunks(content: Path, kind: str, **options: Any) -> Iterator[Any]:
    """Data frames; the same options as for loading, so that the same files fail."""
    import pandas

    options |= {"sep": "\t" if kind == "tsv" else ",", "encoding": "utf-8-sig", "keep_default_na": False}
    with pandas.read_csv(content, chunksize=_CSV_HEAD, **options) as chunks:
        yield from chunks


def _blocks(content: Path) -> Iterator[bytes]:
    with content.open("rb") as stream:
        yield from iter(lambda: stream.read(_BLOCK), b"")


def _bad_line(name: Path, number: int, problem: object) -> InputError:
    return InputError(f"{name}, line {number} is not JSON: {problem}", "repair or remove the line")


def _csv_error(name: Path, error: Exception) -> InputError:
    if isinstance(error, StopIteration):
        return _empty(name)
    return InputError(
        f"{name} cannot be read: {' '.join(str(error).split())}",
        "quote cells that contain the separator or a line break",
    )


def _damaged(name: Path, kind: str, error: Exception) -> InputError:
    return InputError(f"{name} is not a {kind} file, or damaged: {first_line(error)}", "fetch it again")


def _empty(name: Path, what: str = "is empty") -> InputError:
    return InputError(f"{name} {what}", "leave it out, or give a file with text")
