"""Documents that somebody does not want: too short, too long, there already, or refused by a function of theirs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import blake2b
from typing import Any

import numpy as np
import pyarrow.compute as pc

from lmtasks.api import resolve
from lmtasks.config.settings import DataSettings
from lmtasks.data.corpus.row_set import Flags, RowSet
from lmtasks.data.corpus.split import Split
from lmtasks.errors import InputError
from lmtasks.registry.discovery import search_here


def filtered(split: Split, filled: RowSet, wishes: DataSettings) -> tuple[RowSet, dict[str, int]]:
    """Those rows that are wanted, of those that hold something, and how many are not, by the setting that says so.

    Where several settings refuse a row, the first of them counts it. Reads every row once, in bounded batches; of the
    rows it keeps 16 bytes each, and only for ``drop_duplicates``.

    Raises:
        InputError: the split is running text, which has no documents; or there is no such function, or it fails.
    """
    tests = _tests(wishes)
    if tests and not split.documents:
        raise InputError(
            f"--{next(iter(tests))} is about documents, and lines of a text file are none",
            "--sample_by paragraph or --sample_by document",
        )
    if not tests:
        return filled, {}
    wanted = np.ones(len(filled), np.bool_)
    dropped = dict.fromkeys(tests, 0)
    seen = 0
    for array in replace(split, chosen=filled).arrays():
        keep = np.ones(len(array), np.bool_)
        for name, test in tests.items():
            now = keep & test(array)
            dropped[name] += int(np.count_nonzero(keep) - np.count_nonzero(now))
            keep = now
        wanted[seen : seen + len(array)] = keep
        seen += len(array)
    return filled.where(wanted), dropped


def _tests(wishes: DataSettings) -> dict[str, Callable[[Any], Flags]]:
    """What each setting asks of an array of texts; those that change nothing are not among them."""
    tests: dict[str, Callable[[Any], Flags]] = {}
    if (least := wishes.min_chars) is not None:
        tests["min_chars"] = lambda texts: _flags(pc.greater_equal(pc.utf8_length(texts), least))
    if (most := wishes.max_chars) is not None:
        tests["max_chars"] = lambda texts: _flags(pc.less_equal(pc.utf8_length(texts), most))
    if wishes.filter is not None:
        tests["filter"] = _by_function(wishes.filter)
    if wishes.drop_duplicates:
        tests["drop_duplicates"] = _new()
    return tests


def _flags(array: Any) -> Flags:
    return np.asarray(array.to_numpy(zero_copy_only=False), np.bool_)


def _by_function(reference: str) -> Callable[[Any], Flags]:
    """The answers of a user's function, which may fail on a text of theirs."""
    search_here()
    try:
        wanted = resolve(reference) if ":" in reference else None
    except ImportError as error:
        raise InputError(f"--filter: {error}", "--filter MODULE:FUNCTION, a module that can be imported") from error
    # A class is one that remembers what it has seen, and is to begin anew.
    wanted = wanted() if isinstance(wanted, type) else wanted
    if not callable(wanted):
        raise InputError(f"--filter '{reference}' names no function", "--filter MODULE:FUNCTION")

    def answers(texts: list[str]) -> Iterator[bool]:
        for text in texts:
            try:
                yield bool(wanted(text))
            except Exception as error:
                raise InputError(
                    f"--filter {reference} fails on {text[:40]!r}: {type(error).__name__}: {error}", "mend the function"
                ) from error

    return lambda array: np.fromiter(answers(array.to_pylist()), np.bool_, len(array))


def _new() -> Callable[[Any], Flags]:
    """Whether a text is there for the first time, letter for letter."""
    seen: set[bytes] = set()

    def is_new(text: str) -> bool:
        key = blake2b(text.encode(), digest_size=16).digest()
        known = key in seen
        seen.add(key)
        return not known

    return lambda array: np.fromiter(map(is_new, array.to_pylist()), np.bool_, len(array))
