"""JSON: objects one a line, or one value over the whole file; either under either name.

Rows need not be alike, and numbers and text stay as they are written. What a fast reader cannot make sense of goes to
Python's own: what others die of, a null for a row or lists a thousand deep, is an error there that knows its line.
"""

from __future__ import annotations

import codecs
import itertools
import json
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

from lmtasks.api import Reading
from lmtasks.errors import InputError


def read(file: Path, reading: Reading) -> Iterator[dict[str, Any]]:
    """The objects of a file; a string in a list of rows is an object with the one key ``text``."""
    with file.open("rb") as stream:
        beginning = [*itertools.islice(filter(bytes.strip, stream), 2)]
        if not beginning:
            raise _without_rows(reading.name)
        stream.seek(0)
        if _is_whole(beginning):
            yield from _of_whole(stream.read(), reading.name)
            return
        settings = reading.settings
        # Of keys within other values, only those on the way to the text matter, and then all are looked at.
        inside = settings.chat or "." in f"{settings.text_column}{settings.text_template}"
        for number, line in enumerate(stream, start=1):
            if line.strip():
                value = _UNSURE if inside else _quick(line)
                if value is _UNSURE:
                    value = _value(line, reading.name, number)
                if isinstance(value, dict) and len(beginning) == 1 and ".jsonl" not in reading.name:
                    _refuse_columns(value, reading.name)
                if not isinstance(value, dict):
                    raise _bad(reading.name, number, f"a {_kind(value)}, not an object")
                yield value


_UNSURE = object()
_decode = msgspec.json.Decoder().decode
_quoted = lru_cache(1 << 12)(lambda name: json.dumps(name, ensure_ascii=False).encode())


def _quick(line: bytes) -> Any:
    """The value of a line, unless there is anything odd about it."""
    try:
        value = _decode(line)
    except (ValueError, RecursionError):
        return _UNSURE
    # A name that stands there once is no key twice.
    return value if isinstance(value, dict) and all(line.count(_quoted(name)) == 1 for name in value) else _UNSURE


def _is_whole(beginning: list[bytes]) -> bool:
    """Whether a value goes on after its first line, or is a list of all rows, by the first lines of a file."""
    first = beginning[0].strip().removeprefix(codecs.BOM_UTF8)
    if first.startswith(b"["):
        return True
    # Where the line after it is an object, a first line that is none is broken, not the beginning of one.
    return first.startswith(b"{") and not any(_is_object(line) for line in beginning)


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line.strip().removeprefix(codecs.BOM_UTF8)), dict)
    except json.JSONDecodeError:
        return False
    except (ValueError, RecursionError):  # one that nobody can read
        return True


def _of_whole(content: bytes, name: str) -> Iterator[dict[str, Any]]:
    value = _value(content, name)
    if isinstance(value, dict):
        _refuse_columns(value, name)
    rows = value if isinstance(value, list) else [value]
    if not rows:
        raise _without_rows(name)
    for number, row in enumerate(rows, start=1):
        row = {"text": row} if isinstance(row, str) else row
        if not isinstance(row, dict):
            raise InputError(f"row {number} of {name} is a {_kind(row)}, not an object", "repair or remove the row")
        yield row


def _refuse_columns(value: dict[str, Any], name: str) -> None:
    """Refuse a table that was written column by column: read as one row, its texts would be one."""
    sizes = {len(cell) if isinstance(cell, list) else 0 for cell in value.values()}
    if len(value) > 1 and len(sizes) == 1 and max(sizes) > 1:
        raise InputError(
            f"{name} has columns, each a list of {max(sizes)}, and no rows", "write one object for each row"
        )


def _value(content: bytes, name: str, line: int | None = None) -> Any:
    """The value of a line of a file, or of all of it."""
    try:
        return json.loads(content.removeprefix(codecs.BOM_UTF8).decode(), object_pairs_hook=_unique)
    except RecursionError as error:
        raise _bad(name, line, "lists and objects lie too deep within each other") from error
    except json.JSONDecodeError as error:
        # Its line is counted within what was read.
        raise _bad(name, line or error.lineno, f"{error.msg} in column {error.colno}") from error
    except ValueError as error:
        raise _bad(name, line, str(error)) from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        key = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the key '{key[:80]}' twice in one object")
    return value


def _kind(value: Any) -> str:
    return "null" if value is None else type(value).__name__


def _without_rows(name: str) -> InputError:
    return InputError(f"{name} has no rows", "leave it out, or give a file with text")


def _bad(name: str, line: int | None, problem: str) -> InputError:
    place = name if line is None else f"{name}, line {line}"
    return InputError(f"{place} is not JSON: {problem}", "repair or remove the line" if line else "repair the file")
