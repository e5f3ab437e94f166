"""JSON that readers agree on: rows that crash a reader, or that two read differently, are refused by their line."""

from __future__ import annotations

import codecs
import json
import math
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from lmtasks.errors import InputError

DEEPEST = 500
"""Lists and objects within each other; far beyond it Arrow's reader ends the whole process."""

_NO_BRACKETS = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[^][{}"]+')
_NULL_FIRST = re.compile(rb"(?:\xef\xbb\xbf)?\s*\[\s*null\b")


def refuse_crashing(name: Path, content: Path) -> None:
    """Refuse, by its line, what Arrow's reader of JSON does not survive: a null as the first row, too deep nesting."""
    with content.open("rb") as file:
        first = next(filter(bytes.strip, file), b"").strip().removeprefix(codecs.BOM_UTF8)
        if first != b"null" and not (first.startswith(b"{") and first.endswith(b"}")):  # a row is not a line
            whole = content.read_bytes()
            if _NULL_FIRST.match(whole):
                raise bad_line(name, whole[: whole.index(b"null")].count(b"\n") + 1, "a null, not an object")
            if _depth(whole) > DEEPEST:
                raise InputError(f"{name} is nested more than {DEEPEST} deep", "flatten it")
            return
        file.seek(0)
        for number, line in enumerate(file, start=1):
            if line.strip() == b"null":
                raise bad_line(name, number, "a null, not an object")
            if _depth(line) > DEEPEST:
                raise bad_line(name, number, f"nested more than {DEEPEST} deep")


def loads(text: str) -> Any:
    """The value of a text, as ``json.loads`` gives it, where all readers would agree about it.

    Raises:
        ValueError: no JSON, a key twice in one object, a number beyond all floats, half a surrogate pair.
    """
    value = json.loads(text, object_pairs_hook=_unique, parse_float=_finite)
    if "\\u" in text:
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"half a surrogate pair, \\u{ord(error.object[error.start]):04x}") from error
    return value


def bad_line(name: Path, number: int, problem: object) -> InputError:
    """The error of a line that is not what a line of JSON should be."""
    return InputError(f"{name}, line {number} is not JSON: {problem}", "repair or remove the line")


def _depth(text: bytes) -> int:
    """The number of lists and objects within each other, at the deepest place."""
    if text.count(b"[") + text.count(b"{") <= DEEPEST:
        return 0  # not deep enough to be looked at
    signs = np.frombuffer(_NO_BRACKETS.sub(b"", text), np.uint8)
    opened, closed = (np.isin(signs, np.frombuffer(pair, np.uint8)) for pair in (b"[{", b"]}"))
    return int(np.cumsum(opened.astype(np.int64) - closed).max(initial=0))


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError(f"the key '{Counter(key for key, _ in pairs).most_common(1)[0][0]}' twice in one object")
    return value


def _finite(digits: str) -> float:
    if not math.isfinite(value := float(digits)):
        raise ValueError(f"{digits} is more than any number of a computer")
    return value
