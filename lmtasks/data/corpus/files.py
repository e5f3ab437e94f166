"""Data files: those that a list of files, globs and folders means, and their rows."""

from __future__ import annotations

import difflib
import glob
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
from datasets.data_files import DataFilesDict, DataFilesList
from datasets.packaged_modules.arrow.arrow import Arrow
from datasets.packaged_modules.csv.csv import Csv
from datasets.packaged_modules.parquet.parquet import Parquet
from datasets.table import CastError

from lmtasks.api import ReadSettings
from lmtasks.data.corpus.columns import text_path
from lmtasks.data.corpus.compression import COMPRESSED, unpacked
from lmtasks.data.corpus.diagnosis import csv_options, csv_schema, empty, explain, explain_json_cell, table
from lmtasks.data.corpus.fasta import Fasta
from lmtasks.data.corpus.plain_text import PlainText
from lmtasks.data.corpus.sound_json import refuse_crashing
from lmtasks.data.corpus.strict_json import NotTextError, StrictJson
from lmtasks.errors import InputError

_BUILDERS: Mapping[str, tuple[type[datasets.DatasetBuilder], Sequence[str]]] = {
    "text": (PlainText, (".txt", ".raw", ".md")),
    "json": (StrictJson, (".json", ".jsonl")),
    "csv": (Csv, (".csv",)),
    "tsv": (Csv, (".tsv",)),
    "parquet": (Parquet, (".parquet",)),
    "arrow": (Arrow, (".arrow",)),
    "fasta": (Fasta, (".fasta", ".fa", ".faa")),
}
"""The builder of each format, and the ends of its files' names."""

_FORMATS = {suffix: kind for kind, (_, suffixes) in _BUILDERS.items() for suffix in suffixes}
SUFFIXES = tuple(name + compressed for compressed in ("", *COMPRESSED) for name in _FORMATS)

LAYOUT = 3
"""Goes up whenever a file is read into other rows or columns, so that no old copy is taken for it."""


@dataclass(frozen=True)
class _DataFile:
    """A file that a user named.

    Args:
        name: the path as the user knows it.
        content: the path to read: ``name``, or its uncompressed copy.
        format: a key of :data:`_BUILDERS`.
    """

    name: Path
    content: Path
    format: str


def find_files(names: Sequence[str], flag: str, suffixes: Sequence[str] = SUFFIXES) -> list[Path]:
    """The files that the values of a flag mean, in order, each once.

    A value is a file, a folder (its data files at any depth, hidden ones left out) or a glob. A file that
    exists is taken literally even if its name looks like a glob.

    Args:
        suffixes: how the names of the files that are taken from a folder may end.

    Raises:
        InputError: nothing of that name, or nothing in it.
    """
    found: dict[str, Path] = {}
    for name in names:
        for file in _expand(name, flag, suffixes):
            found.setdefault(os.path.realpath(file), file)
    return list(found.values())


def load_files(files: Sequence[Path], data: ReadSettings) -> tuple[datasets.Dataset, str | None, bool]:
    """The rows of data files, the text column to look for in them, and whether each row is a document.

    Raises:
        InputError: names the file that cannot be read, and where in it.
    """
    groups: dict[str, list[_DataFile]] = {}
    for file in map(_open, files):
        groups.setdefault(file.format, []).append(file)
    documents = "text" not in groups or data.sample_by != "line"
    if len(groups) == 1:
        ((kind, members),) = groups.items()
        return _read(kind, members, data), data.text_column, documents
    if not documents:
        raise InputError(
            "text files read by line cannot be mixed with files of documents: " + describe(files),
            "--sample_by paragraph or --sample_by document",
        )
    parts = [_text_only(kind, members, data) for kind, members in groups.items()]
    return datasets.concatenate_datasets(parts), "text", True


def text_options(sample_by: str) -> dict[str, Any]:
    """Options of the text builder of ``datasets``: line breaks kept, a byte order mark dropped."""
    return {"keep_linebreaks": True, "sample_by": sample_by, "encoding": "utf-8-sig"}


def is_saved(folder: Path) -> bool:
    """Whether ``save_to_disk`` made a folder."""
    return any((folder / file).is_file() for file in ("dataset_dict.json", "state.json"))


def describe(files: Sequence[Path]) -> str:
    """Short words for people."""
    return files[0].name if len(files) == 1 else f"{len(files)} files"


def _open(file: Path) -> _DataFile:
    """The file with its format, uncompressed if need be."""
    plain = Path(file.stem) if file.suffix.lower() in COMPRESSED else file
    kind = _FORMATS.get(plain.suffix.lower())
    if kind is None:
        supported = ", ".join(name.lstrip(".") for name in _FORMATS)
        raise InputError(
            f"unknown kind of data file: {file}", f"the name must end in one of {supported}; .gz .xz .zst too"
        )
    # "::" joins archives and their members wherever datasets reads a path.
    if "::" in str(file.absolute()):
        raise InputError(f"the name of a data file cannot hold '::': {file}", "rename it")
    content = unpacked(file)
    if content.stat().st_size == 0:
        raise empty(file)
    return _DataFile(file, content, kind)


def _expand(name: str, flag: str, suffixes: Sequence[str]) -> list[Path]:
    path = Path(name).expanduser()
    if path.is_dir():
        return _files_in(path, flag, suffixes)
    if path.exists():
        return [path]
    if not glob.has_magic(name):
        raise InputError(
            f"--{flag}: no such file: {name}{_neighbour(path)}", "check the path; globs and folders work too"
        )
    files = sorted(Path(match) for match in glob.glob(str(path), recursive=True) if os.path.isfile(match))
    if not files:
        raise InputError(f"--{flag}: no file matches {name}", "check the pattern; ** stands for folders at any depth")
    return _with_content(files)


def _files_in(folder: Path, flag: str, suffixes: Sequence[str]) -> list[Path]:
    if is_saved(folder):
        raise InputError(f"--{flag}: {folder} was made by save_to_disk", f"--dataset_name {folder}")
    files = sorted(
        file
        for file in (Path(parent, name) for parent, _, names in os.walk(folder) for name in names)
        if file.name.lower().endswith(tuple(suffixes))
        and not any(part.startswith(".") for part in file.relative_to(folder).parts)
    )
    if not files:
        known = ", ".join(suffix.lstrip(".") for suffix in suffixes if suffix.count(".") == 1)
        raise InputError(f"--{flag}: no data files in the folder {folder}", f"it may hold {known}")
    return _with_content(files)


def _with_content(files: list[Path]) -> list[Path]:
    """The files but the empty ones, which nobody asked for by name, unless there are no others."""
    return [file for file in files if file.stat().st_size] or files


def _neighbour(path: Path) -> str:
    """A suggestion: a file of nearly that name beside it."""
    if not path.parent.is_dir():
        return ""
    close = difflib.get_close_matches(path.name, [file.name for file in path.parent.iterdir()], n=1)
    return f", did you mean '{path.with_name(close[0])}'?" if close else ""


def _read(kind: str, files: Sequence[_DataFile], data: ReadSettings) -> datasets.Dataset:
    """All rows of files of one format, in their order."""
    for file in files if kind == "json" else ():
        refuse_crashing(file.name, file.content)
    try:
        return _prepared(_BUILDERS[kind][0], files, _options(kind, files, data))
    except (datasets.exceptions.DatasetGenerationError, ValueError, pa.ArrowException, OSError, InputError) as error:
        # Datasets hides the file and the cause, so look for them; what has no such cause is no user's mistake.
        cause = error.__cause__ if isinstance(error, datasets.exceptions.DatasetGenerationError) else error
        for file in files:
            explain(file.name, file.content, kind, files[0].content)
            if kind == "json":
                # Older versions of datasets fail on mixed types before the path is known.
                path = cause.path if isinstance(cause, NotTextError) else (data.text_column or "text").split(".")
                explain_json_cell(file.name, file.content, path)
        if isinstance(cause, InputError):
            raise cause from None
        if isinstance(cause, CastError) or re.search(r"Couldn't cast|Column\(.*changed from", str(cause)):
            raise InputError(
                f"the columns of {_names(files)} differ: {' '.join(str(cause).split())}",
                "give files whose columns have the same names and types",
            ) from error
        raise


def _prepared(builder: type[datasets.DatasetBuilder], files: Sequence[_DataFile], options: Any) -> datasets.Dataset:
    """The rows of files, read into the cache of datasets unless they are there already.

    Not through ``load_dataset``: it takes names for patterns, tells the Hub about every load, even of local
    files, which stalls where there is no network, and tells states of a file apart by time alone.
    """
    paths = [str(file.content.absolute()) for file in files]
    states = [(str(status.st_mtime_ns), str(status.st_size)) for status in map(os.stat, paths)]
    prepared = builder(
        dataset_name=builder.__name__.lower(),
        # Names a folder of the cache: another version of either may read the same file differently.
        hash=f"{datasets.__version__}-{metadata.version('lmtasks')}-{LAYOUT}",
        data_files=DataFilesDict({"train": DataFilesList(paths, states)}),
        # Rows in one piece of the file: for each piece the table that is read back keeps some kilobytes.
        writer_batch_size=1 << 16,
        **options,
    )
    prepared.download_and_prepare()
    return prepared.as_dataset("train")


def _options(kind: str, files: Sequence[_DataFile], data: ReadSettings) -> dict[str, Any]:
    """Options of the builder of a format."""
    if kind == "text":
        return text_options(data.sample_by)
    if kind == "fasta":
        return {}
    if kind == "json":
        # Datasets takes some JSON files for logs of coding agents.
        return {"text_column": data.text_column, "source": _names(files), "parse_agent_traces": False}
    if kind in ("csv", "tsv"):
        schema = csv_schema(files[0].name, files[0].content, kind)
        text_path(schema, data.text_column, files[0].name.name)
        # Left alone, pandas reads a piece of a text column that looks like numbers as such: 007 becomes 7.
        strings = dict.fromkeys(schema.names, datasets.Value("string"))
        return {**csv_options(kind), "features": datasets.Features(strings)}
    # Every file is looked at: datasets would turn numbers in the text column of a later file into text.
    schemas = [table(file.content, kind)[0] for file in files]
    paths = [text_path(schema, data.text_column, file.name.name) for schema, file in zip(schemas, files, strict=True)]
    columns = {path[0]: file.name.name for path, file in zip(paths, files, strict=True)}
    if len(columns) > 1:
        told = ", ".join(f"it is '{column}' in {name}" for column, name in columns.items())
        raise InputError(f"the files have their text in columns of different names: {told}", "--text_column NAME")
    # Of the one column only: datasets has no words for some types of others, such as maps.
    features = datasets.Features.from_arrow_schema(pa.schema([schemas[0].field(paths[0][0])]))
    return {"columns": [*columns], "features": features} if kind == "parquet" else {}


def _text_only(kind: str, files: Sequence[_DataFile], data: ReadSettings) -> datasets.Dataset:
    """Rows with nothing but a string column ``text``, so that those of several formats can be joined."""
    rows = _read(kind, files, data)
    path = text_path(rows.features.arrow_schema, None if kind in ("text", "fasta") else data.text_column, _names(files))
    value = rows.features[path[0]]
    if len(path) > 1 or not isinstance(value, datasets.Value):
        raise InputError(
            f"column '{'.'.join(path)}' of {_names(files)} is nested: files of several formats "
            "can be mixed only where the text is a plain column",
            "train on one format at a time",
        )
    rows = rows.select_columns([path[0]]).rename_columns({path[0]: "text"})
    return rows if value.dtype == "string" else rows.cast_column("text", datasets.Value("string"))


def _names(files: Sequence[_DataFile]) -> str:
    return describe([file.name for file in files])
