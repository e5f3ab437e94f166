"""Data files as rows of text: read once for each content, kept in the cache of ``datasets``, mapped from there."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.ipc

from lmtasks.api import Format, ReadSettings, source_of
from lmtasks.data.corpus.columns import UntoldError
from lmtasks.data.corpus.content import digest, plain
from lmtasks.data.corpus.find import format_of
from lmtasks.data.corpus.formats.text import BEGINS
from lmtasks.data.corpus.selection import Rows, Selection
from lmtasks.errors import InputError, first_line
from lmtasks.progress import stage

LAYOUT = 5
"""Goes up whenever a file is read into other rows, so that no old copy is taken for it."""

_PIECE = 4 << 20
"""Bytes of text in one piece of what is kept: for each piece, the table that is mapped has some kilobytes."""

_ROWS = 1000
"""Rows that Python holds at once; and by which the types of columns without any are known."""

_HOW = ("text_column", "text_template", "chat", "sample_by", "encoding", "csv_separator", "csv_quoting", "csv_header")
"""Settings on which the rows of a file depend."""


@dataclass(frozen=True)
class _DataFile:
    """A file that a user named.

    Args:
        name: the path as the user knows it.
        encoding: of its characters, where somebody named one.
    """

    name: Path
    format: Format
    encoding: str | None

    @cached_property
    def content(self) -> Path:
        """The path to read: ``name``, or a copy of it, unpacked or in another encoding.

        Raises:
            InputError: see :func:`lmtasks.data.corpus.content.plain`.
        """
        return plain(self.name, characters=self.format.characters, encoding=self.encoding)


def load_files(files: Sequence[Path], data: ReadSettings) -> tuple[datasets.Dataset, str | None, bool]:
    """The rows of data files, the column of their text, and whether each row is a document.

    Raises:
        InputError: names the file that cannot be read, and where in it.
    """
    named = [_DataFile(file, format_of(file, data.format), data.encoding) for file in files]
    lines = [file.format.name == "text" and data.sample_by == "line" for file in named]
    if any(lines) and not all(lines):
        raise InputError(
            "text files read by line cannot be mixed with files of documents: " + describe(files),
            "--sample_by paragraph or --sample_by document",
        )
    kept = _place(named, data)
    if not kept.exists():
        _write(kept, named, data)
    rows = datasets.Dataset.from_file(str(kept))
    return rows, next(name for name in rows.column_names if name != BEGINS), not any(lines)


def describe(files: Sequence[Path]) -> str:
    """Short words for people."""
    return files[0].name if len(files) == 1 else f"{len(files)} files"


def _place(files: Sequence[_DataFile], data: ReadSettings) -> Path:
    """The file in the cache for what these files hold, read in this way."""
    parts = {
        # The end of a name says what the content has to be.
        "files": [(digest(file.name), file.format.name, "".join(file.name.suffixes).lower()) for file in files],
        "settings": {name: getattr(data, name) for name in _HOW},
        "versions": [LAYOUT, metadata.version("lmtasks"), datasets.__version__, pa.__version__],
        "readers": sorted({source_of(file.format.read) or repr(file.format.read) for file in files}),
    }
    key = hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=16).hexdigest()
    return Path(datasets.config.HF_DATASETS_CACHE, "lmtasks-rows", f"{key}.arrow")


def _write(kept: Path, files: Sequence[_DataFile], data: ReadSettings) -> None:
    """Read the files into a file of the cache; several processes may do so at once, the last one's stays."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=kept.parent)
    os.close(handle)
    try:
        pieces = _pieces(_with_progress(_tables(files, data), files))
        first = next(pieces)
        with pa.OSFile(name, "wb") as sink, pa.ipc.new_stream(sink, first.schema) as writer:
            for piece in itertools.chain([first], pieces):
                writer.write_table(piece)
        os.replace(name, kept)
    finally:
        Path(name).unlink(missing_ok=True)


def _with_progress(tables: Iterator[pa.Table], files: Sequence[_DataFile]) -> Iterator[pa.Table]:
    total = sum(file.content.stat().st_size for file in files)
    with stage("reading the data", max(1, total >> 20), "MB") as progress:
        done = 0
        for table in tables:
            yield table
            done += table.nbytes
            progress.update(min(done, total) >> 20)


def _pieces(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Tables joined until they are large enough, each in one piece; one without rows if there are none."""
    waiting: list[pa.Table] = []
    size = 0
    for table in tables:
        waiting.append(table)
        size += table.nbytes
        if size >= _PIECE:
            yield _joined(waiting)
            waiting, size = [], 0
    if waiting:
        yield _joined(waiting)


def _joined(tables: Sequence[pa.Table]) -> pa.Table:
    return tables[0] if len(tables) == 1 else pa.concat_tables(tables).combine_chunks()


def _tables(files: Sequence[_DataFile], data: ReadSettings) -> Iterator[pa.Table]:
    """The texts of all files in order, in a column that is called the same in all of them."""
    mixed = len({file.format.name for file in files}) > 1
    labels: dict[str, str] = {}
    for file in files:
        selection = Selection(str(file.name), data)
        for table in _texts(file, selection, mixed):
            labels.setdefault(table.column_names[0], file.name.name)
            if len(labels) > 1:
                told = ", ".join(f"it is '{label}' in {name}" for label, name in labels.items())
                raise InputError(
                    f"the files have their text in columns of different names: {told}", "--text_column NAME"
                )
            yield table


def _texts(file: _DataFile, selection: Selection, mixed: bool) -> Iterator[pa.Table]:
    """The texts of one file in their column, beside the one that says where texts begin, if it has that.

    Args:
        mixed: whether there are files of other formats: their columns have no common name, and some have none.
    """
    seen = 0
    try:
        for rows in _rows(file.format.read(file.content, _Told(selection, file))):
            begins = {}
            if isinstance(rows, pa.Table) and BEGINS in rows.column_names:
                begins, rows = {BEGINS: rows[BEGINS]}, rows.drop_columns([BEGINS])
            if mixed and isinstance(rows, pa.Table) and rows.column_names == ["text"]:
                texts = rows["text"]
            else:
                texts = selection.texts(rows, seen)
            seen += len(rows)
            yield pa.table({"text" if mixed else selection.label: texts, **begins})
    except UntoldError as error:
        raise error.showing(_first_row(file, selection)) from None
    except ValueError as error:
        # Readers of ours raise none; what a plugin's says is about the file.
        told = f"{file.name} cannot be read as {file.format.name}: {first_line(error)[:200]}"
        raise InputError(told, "repair the file, or leave it out") from error
    if not seen:
        raise InputError(f"{file.name} has no rows", "leave it out, or give a file with text")


def _first_row(file: _DataFile, selection: Selection) -> Mapping[str, Any]:
    """The first row of a file with all its columns."""
    rows = next(_rows(file.format.read(file.content, _Everything(selection, file))))
    first = rows.slice(0, 1).to_pylist() if isinstance(rows, pa.Table) else [rows[0]]
    return first[0] if first else {}


@dataclass(frozen=True)
class _Told:
    """What a reader is told; see :class:`lmtasks.api.format.Reading`."""

    selection: Selection
    file: _DataFile

    @property
    def name(self) -> str:
        """The file as the user calls it."""
        return str(self.file.name)

    @property
    def settings(self) -> ReadSettings:
        """How files are to be read."""
        return self.selection.settings

    def columns(self, schema: pa.Schema) -> list[str]:
        """The columns that are needed."""
        return self.selection.columns(schema)


class _Everything(_Told):
    """What a reader is told that is to give all columns."""

    def columns(self, schema: pa.Schema) -> list[str]:
        """All of them."""
        return list(schema.names)


def _rows(items: Iterator[Any]) -> Iterator[Rows]:
    """What a reader gives, as tables or lists of mappings."""
    for kind, alike in itertools.groupby(items, key=lambda item: str if isinstance(item, str) else type(item)):
        if issubclass(kind, pa.Table):
            yield from alike
            continue
        while some := [*itertools.islice(alike, _ROWS)]:
            yield pa.table({"text": pa.array(some, pa.string())}) if kind is str else some
