"""Texts that a command is about: typed, or from a file or standard input, one a line."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from lmtasks.errors import InputError, nearest_path


def texts_of(command: str, typed: Sequence[str], file: str | None) -> dict[int, str]:
    """The texts by their numbers, counting from 1: places on the command line, or lines of the file; blank ones go.

    Args:
        typed: the texts on the command line; without any, they come from ``file``.
        file: name of a file; ``-`` or None for standard input.

    Raises:
        InputError: texts come from both, the file cannot be read, or there is none.
    """
    if file and typed:
        raise InputError(f"texts come from '{file}' and from the command line", "give one of the two")
    if typed:
        return dict(enumerate(typed, 1))
    if file is None and (sys.stdin is None or sys.stdin.isatty()):
        raise InputError(f"{command} needs a text", "put it in quotes after the model, or name a --file")
    source = "standard input" if file in (None, "-") else f"'{file}'"
    try:
        content = _standard_input() if file in (None, "-") else Path(str(file)).read_bytes()
        # Not splitlines(): a line of text may hold what separates lines or pages elsewhere, such as U+2028.
        lines = re.split("\r\n|\r|\n", content.decode("utf-8-sig"))
    except OSError as error:
        told = f"cannot read '{file}': {error.strerror}{nearest_path(str(file))}"
        raise InputError(told, "give an existing file") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{source} is no UTF-8 text: byte {error.start}", "convert it to UTF-8") from error
    texts = {number: line for number, line in enumerate(lines, 1) if line.strip()}
    if not texts:
        raise InputError(f"no text in {source}", "one text a line")
    return texts


def _standard_input() -> bytes:
    return b"" if sys.stdin is None else sys.stdin.buffer.read()
