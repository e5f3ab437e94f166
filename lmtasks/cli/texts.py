"""Texts that a command is about: typed, or from standard input, one a line, or from a file."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from lmtasks.api import convert, options_of
from lmtasks.cli.parser import Parser, add_options
from lmtasks.config.settings import DataSettings
from lmtasks.errors import InputError

_OPTIONS = options_of(DataSettings)
HOW = {
    name: _OPTIONS[name]
    for name in ("text_column", "text_template", "format", "encoding", "csv_separator", "csv_quoting", "csv_header")
}
"""Options of reading a file, by name."""


def add_flags(parser: Parser) -> None:
    """Add the flags that name a file of texts."""
    parser.add_argument(
        "--file", metavar="FILE", help="texts from a file: its lines, or the rows of json, csv, …; - for standard input"
    )
    add_options(parser, "how the file is read", HOW.values())


def texts_of(
    command: str, typed: Sequence[str], file: str | None, flags: Mapping[str, Any] = MappingProxyType({})
) -> dict[int, str]:
    """The texts by their numbers, counting from 1: places on the command line, lines or rows; blank ones go.

    Args:
        typed: the texts on the command line; without any, they come from ``file``.
        file: name of a file of any format that runs are trained on; ``-`` or None for standard input.
        flags: as typed; those of ``HOW`` count.

    Raises:
        InputError: texts come from both, the file cannot be read, or there is none.
    """
    if file and typed:
        raise InputError(f"texts come from '{file}' and from the command line", "give one of the two")
    how = {name: convert(option, flags[name]) for name, option in HOW.items() if name in flags}
    if how and file in (None, "-"):
        raise InputError(f"--{next(iter(how))} is about a --file", "leave it out, or name a --file")
    if typed:
        return dict(enumerate(typed, 1))
    if file is None and (sys.stdin is None or sys.stdin.isatty()):
        raise InputError(f"{command} needs a text", "put it in quotes after the model, or name a --file")
    name = None if file == "-" else file
    source = "standard input" if name is None else f"'{name}'"
    if name is None:
        read = _lines(source, b"" if sys.stdin is None else sys.stdin.buffer.read())
    elif os.path.exists(name) and not os.path.isfile(name) and not os.path.isdir(name):  # a pipe, as of <(COMMAND)
        read = _lines(source, Path(name).read_bytes())
    else:
        read = _rows(name, how)
    texts = {number: text for number, text in enumerate(read, 1) if text.strip()}
    if not texts:
        raise InputError(f"no text in {source}", "one text a line")
    return texts


def _rows(name: str, how: Mapping[str, Any]) -> list[str]:
    """The rows of a file as training reads them; its lines, where its name says nothing else."""
    from lmtasks.data.corpus.find import find_files, suffixes
    from lmtasks.data.corpus.read import load_files

    kind = {} if name.lower().endswith(suffixes()) else {"format": "text"}
    data = DataSettings(**{**kind, **how, "sample_by": "line"})
    rows, label, _ = load_files(find_files([name], "file"), data)
    return [text.removesuffix("\n") for text in rows[label]]


def _lines(source: str, content: bytes) -> list[str]:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{source} is no UTF-8 text: byte {error.start}", "convert it to UTF-8") from error
    # Not splitlines(): a line of text may hold what separates lines or pages elsewhere, such as U+2028.
    return re.split("\r\n|\r|\n", text)
