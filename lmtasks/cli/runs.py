"""``lmtasks runs``: the runs that are there, with their figures."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from lmtasks.cli.answers import tell
from lmtasks.cli.argv import told_of
from lmtasks.errors import InputError, nearest_path

FIGURES = ("eval_loss", "perplexity", "bits_per_byte", "accuracy")
"""Those that are told of each run, where it has them."""

WIDEST = 40
"""Characters of a folder's name beside which the figures of all runs stand in columns."""


def command(words: list[str]) -> int:
    """Print a line for each run below a folder."""
    names, said = told_of(words, "lmtasks runs [FOLDER]", names=None)
    if len(names) > 1:
        raise InputError(f"unexpected '{names[1]}'", "lmtasks runs takes one folder")
    place = Path(names[0] if names else ".")
    if not place.is_dir():
        raise InputError(
            f"no such folder: '{place}'{nearest_path(place)}",
            "lmtasks runs [FOLDER]; without one, those below this folder",
        )
    found = [_told(folder, record) for folder, record in records(place)]
    return tell(found, _lines(found) if found else [f"no run below '{place}'"], as_json="json" in said)


def records(place: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The folders of runs below a place, and what each says of itself, by name; what is damaged is no run."""
    from lmtasks.artifacts.run_folder import RECORD, read_record

    for folder, inner, files in os.walk(place):
        inner.sort()
        if RECORD not in files:
            continue
        inner.clear()  # there are no runs within runs
        record = None
        with suppress(InputError, OSError):
            record = read_record(folder)
        if record is not None:
            yield Path(folder), record


def _told(folder: Path, record: dict[str, Any]) -> dict[str, Any]:
    """What is told of a run."""
    metrics = record.get("metrics")
    figures = {name: _figure(metrics.get(name)) if isinstance(metrics, dict) else None for name in FIGURES}
    about = {name: record.get(name) for name in ("recipe", "status", "started", "base_model", "model_type")}
    return {"folder": str(folder), **about, **figures}


def _lines(found: list[dict[str, Any]]) -> Iterator[str]:
    rows = [("run", "recipe", "loss", "perplexity", "bits/byte", "started")]
    for one in found:
        done = one["status"] == "done"
        numbers = (_number(one["eval_loss"], 4), _number(one["perplexity"], 2), _number(one["bits_per_byte"], 3))
        figures = numbers if done else (str(one["status"]), "", "")
        rows.append((one["folder"], str(one["recipe"]), *figures, str(one["started"] or "")[:10]))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    # One long path makes its own row wide, not all of them.
    widths[0] = max((len(row[0]) for row in rows if len(row[0]) <= WIDEST), default=0)
    for name, recipe, *others in rows:
        cells = [text.rjust(width) for text, width in zip(others, widths[2:], strict=True)]
        yield "  ".join([name.ljust(widths[0]), recipe.ljust(widths[1]), *cells]).rstrip()


def _figure(value: Any) -> float | None:
    """A figure of a record, which anybody may have written; None for what is none."""
    return value if isinstance(value, int | float) else None


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
