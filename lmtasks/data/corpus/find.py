"""Data files: those that a list of files, globs and folders means, and what kind each is."""

from __future__ import annotations

import glob
import hashlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import datasets
from datasets.data_files import get_data_patterns

from lmtasks.api import Format
from lmtasks.config.launched import job_mark
from lmtasks.config.world import World
from lmtasks.data.corpus.compression import COMPRESSED
from lmtasks.errors import InputError, nearest, nearest_path
from lmtasks.progress import say
from lmtasks.registry.catalog import load_catalog
from lmtasks.registry.enabled_plugins import BUILTIN, Selection, current

_PACKED = frozenset({".zip", ".tar", ".tgz", ".tbz2", ".txz", ".7z", ".rar", ".lz4", ".lzma", ".lz", ".br", ".z"})
"""Ends of the names of archives, and of compressed files that nothing here opens: no format reads them."""


def formats() -> Mapping[str, Format]:
    """The formats that are known, by name: those that are built in first."""
    return _formats(current())[0]


@lru_cache(maxsize=1)
def _formats(selection: Selection) -> tuple[Mapping[str, Format], frozenset[str]]:
    """The formats of a choice of plugins, and the names of those built in. Kept: a folder may have many files."""
    catalog = load_catalog()
    built_in = (name for plugin in catalog.plugins if plugin.distribution == BUILTIN for name in plugin.formats)
    return catalog.formats, frozenset(built_in)


def suffixes() -> tuple[str, ...]:
    """How the names of files may end, those of compressed ones included."""
    plain = [suffix for known in formats().values() for suffix in known.suffixes]
    return tuple(suffix + packed for packed in ("", *COMPRESSED) for suffix in plain)


def format_of(file: Path, name: str | None = None) -> Format:
    """The format of a file: the one of that name, else what its own name says; text, where its name says nothing.

    Raises:
        InputError: no such format; or no format has the end of the file's name, or several of plugins have.
    """
    known = formats()
    if name is not None:
        if name not in known:
            raise InputError(f"--format cannot be '{name}'{nearest(name, known)}", f"one of {', '.join(known)}")
        return known[name]
    plain = Path(file.stem) if file.suffix.lower() in COMPRESSED else file
    suffix = plain.suffix.lower()
    found = [one for one in known.values() if suffix in one.suffixes]
    # Nobody takes an end of names that is built in.
    found = [one for one in found if one.name in _formats(current())[1]] or found
    if len(found) > 1:
        names = [one.name for one in found]
        raise InputError(f"{_short(file)} may be {' or '.join(names)}", f"--format {names[0]}, or another of these")
    if not found and suffix:
        hint = "unpack it first" if suffix in _PACKED else f"--format NAME reads it: one of {', '.join(known)}"
        raise InputError(f"unknown kind of data file: {_short(file)}", hint)
    return found[0] if found else known["text"]


def find_files(
    names: Sequence[str], flag: str, suffixes: Sequence[str] | None = None, format: str | None = None
) -> list[Path]:
    """The files that the values of a flag mean, in order, each once.

    A value is a file, a folder (its data files at any depth, hidden ones left out), a glob, or ``-`` for what is read
    from standard input. A file that exists is taken literally, whatever its name looks like.

    Args:
        suffixes: how the names of the files that are taken from a folder may end; as text comes, if not given.
        format: of all the files, where somebody said so; then a folder's files may be called anything.

    Raises:
        InputError: nothing of that name, or nothing in it.
    """
    ends = suffixes if suffixes is not None else ("",) if format else globals()["suffixes"]()
    found: dict[str, Path] = {}
    for name in names:
        for file in _expand(name, flag, ends):
            found.setdefault(os.path.realpath(file), file)
    return list(found.values())


def is_saved(folder: Path) -> bool:
    """Whether ``save_to_disk`` made a folder."""
    return any((folder / file).is_file() for file in ("dataset_dict.json", "state.json"))


def _expand(name: str, flag: str, ends: Sequence[str]) -> list[Path]:
    if name == "-":
        if job_mark() or World.current().size > 1:
            raise InputError(
                f"--{flag} -: standard input is that of the process in which this was typed, and others work on it",
                "save the data in a file that all processes see, and name that",
            )
        return [_standard_input(flag)]
    if not name.strip():
        raise InputError(f"--{flag} has an empty name", "give a file, a folder or a glob")
    path = Path(name) if _exists(Path(name)) else _home(name)
    if not _exists(path):
        return _matches(name, path, flag)
    return _files_in(path, flag, ends) if path.is_dir() else [path]


def _home(name: str) -> Path:
    """The path with a user's own folder in place of a tilde before it, if there is such a user."""
    try:
        return Path(name).expanduser()
    except RuntimeError:
        return Path(name)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name that is too long or has a NUL, or a loop of links
        return False


def _matches(name: str, path: Path, flag: str) -> list[Path]:
    if not glob.has_magic(name):
        dangling = " (a link that leads nowhere)" if os.path.islink(path) else ""
        raise InputError(
            f"--{flag}: no such file: {_short(name)}{dangling}{nearest_path(path)}",
            "check the path; globs and folders work too",
        )
    files = sorted(Path(match) for match in glob.glob(str(path), recursive=True) if os.path.isfile(match))
    if not files:
        raise InputError(
            f"--{flag}: no file matches {_short(name)}", "check the pattern; ** stands for folders at any depth"
        )
    return _with_content(files)


def _standard_input(flag: str) -> Path:
    """What is read from standard input, as a file in the cache."""
    if sys.stdin is None or sys.stdin.isatty():
        raise InputError(f"--{flag} - reads standard input, and nothing comes from there", "command | lmtasks …")
    return _saved(sys.stdin.buffer)


@lru_cache(maxsize=1)
def _saved(stream: BinaryIO) -> Path:
    """What a stream gives, which it does only once, in a file of the cache."""
    content = stream.read()
    name = hashlib.blake2b(content, digest_size=16).hexdigest()
    file = Path(datasets.config.HF_DATASETS_CACHE, "lmtasks-input", name, "standard_input")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return file


def _files_in(folder: Path, flag: str, ends: Sequence[str]) -> list[Path]:
    if is_saved(folder):
        raise InputError(f"--{flag}: {folder} was made by save_to_disk", f"--dataset_name {folder}")
    taken: list[Path] = []
    left: list[Path] = []
    for file in sorted(_walk(folder)):
        (taken if file.name.lower().endswith(tuple(ends)) and file.is_file() else left).append(file)
    if not taken:
        raise InputError(
            f"--{flag}: no data files in the folder {folder}", "--format NAME takes files of any name for that format"
        )
    _refuse_splits(folder, taken, flag)
    tell_left_out(folder, [file.name for file in left])
    return _with_content(taken)


def tell_left_out(folder: Path, names: Sequence[str]) -> None:
    """Say which files of a folder are not read, if there are any."""
    if names:
        files = "1 file" if len(names) == 1 else f"{len(names)} files"
        say(f"{folder}: {files} left out, of no known kind: {', '.join(names[:3])}")


def _walk(folder: Path) -> Iterator[Path]:
    """The files of a folder at any depth, behind links too; without hidden ones."""
    seen: set[str] = set()

    def refuse(error: OSError) -> None:
        raise InputError(f"cannot read the folder {error.filename}: {error.strerror}", "check who may read it")

    for parent, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        real = os.path.realpath(parent)
        folders[:] = [] if real in seen else sorted(name for name in folders if not name.startswith("."))
        if real not in seen:
            yield from (Path(parent, name) for name in names if not name.startswith("."))
        seen.add(real)


def _refuse_splits(folder: Path, files: Sequence[Path], flag: str) -> None:
    """Refuse a folder whose files are the splits of a dataset: to pool them is to train on the test."""
    try:
        splits = [str(split) for split in get_data_patterns(str(folder.resolve()))]
    except FileNotFoundError:
        return
    if len(splits) > 1 and len(files) > 1:
        names = ", ".join(file.name for file in files[:3])
        raise InputError(
            f"--{flag}: the files of {folder} are splits of a dataset, {', '.join(splits)}: {names}",
            f"--dataset {folder} --validation_split {splits[1]}, or name the files",
        )


def _with_content(files: list[Path]) -> list[Path]:
    """The files but the empty ones, which nobody asked for by name, unless there are no others."""
    return [file for file in files if file.stat().st_size] or files


def _short(name: object) -> str:
    """A name for a message: whole, unless it is longer than anybody reads."""
    text = "".join(letter if letter.isprintable() else "?" for letter in str(name))
    return text if len(text) <= 200 else f"{text[:100]}…{text[-60:]}"
