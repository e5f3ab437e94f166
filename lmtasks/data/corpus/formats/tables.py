"""Parquet and Arrow files: tables whose columns have types."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet

from lmtasks.api import Reading
from lmtasks.errors import InputError, first_line

_ROWS = 1024
"""Rows of a parquet file that are in memory at once."""


def read_parquet(file: Path, reading: Reading) -> Iterator[pa.Table]:
    """The columns of a parquet file that are needed, some rows at a time."""
    try:
        parquet = pa.parquet.ParquetFile(file)
        if not parquet.metadata.num_rows:
            raise _without_rows(reading)
        columns = reading.columns(parquet.schema_arrow)
        for batch in parquet.iter_batches(_ROWS, columns=columns):
            yield pa.Table.from_batches([batch])
    except (pa.ArrowException, OSError) as error:
        raise _damaged(reading, "a parquet", error) from error


def read_arrow(file: Path, reading: Reading) -> Iterator[pa.Table]:
    """The columns of an Arrow file, a stream or not, that are needed."""
    try:
        schema, batches = _opened(file)
        columns, rows = reading.columns(schema), 0
        for batch in batches:
            rows += batch.num_rows
            yield pa.Table.from_batches([batch]).select(columns)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(reading, "an Arrow", error) from error
    if not rows:
        raise _without_rows(reading)


def _opened(file: Path) -> tuple[pa.Schema, Iterable[pa.RecordBatch]]:
    source = pa.memory_map(str(file))
    try:
        stream = pa.ipc.open_stream(source)
        return stream.schema, stream
    except pa.ArrowInvalid:
        opened = pa.ipc.open_file(source)
        return opened.schema, map(opened.get_batch, range(opened.num_record_batches))


def _damaged(reading: Reading, kind: str, error: Exception) -> InputError:
    return InputError(f"{reading.name} is not {kind} file, or damaged: {first_line(error)[:200]}", "fetch it again")


def _without_rows(reading: Reading) -> InputError:
    return InputError(f"{reading.name} has no rows", "leave it out, or give a file with text")
