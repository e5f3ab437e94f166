"""Data files as tests write them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq


def write(name: str, content: str | bytes) -> str:
    """The name of a file that holds the content now, in whatever folder."""
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return name


def parquet(table: pa.Table) -> bytes:
    """The table as a parquet file."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return bytes(sink.getvalue())


def arrow(table: pa.Table, new: Callable[..., Any] = pa.ipc.new_stream) -> bytes:
    """The table as an Arrow stream, or as a file in Arrow's other format."""
    sink = pa.BufferOutputStream()
    with new(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())
