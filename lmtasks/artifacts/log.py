"""The log of a run, ``log.jsonl``, as it grows, and its entries in words."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from typing import Any

from lmtasks.artifacts.run_folder import LOG
from lmtasks.config.evaluation_sets import in_set, set_names

Entry = Mapping[str, Any]

FIGURES = ("loss", "perplexity", "accuracy", "bits_per_byte")
"""Those of an evaluation that are told."""


class GrowingLog:
    """The log of a run that goes on, read from where it was read before.

    Args:
        folder: of the run; the log need not be there yet.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOG
        self.lines: list[bytes] = []
        self._inode, self._read = 0, 0

    def news(self) -> list[Entry]:
        """The entries that are new; after a resumption, which takes back what is done once more, from there on."""
        with suppress(FileNotFoundError), self.path.open("rb") as file:
            about = self.path.stat()
            replaced = about.st_ino != self._inode or about.st_size < self._read
            file.seek(0 if replaced else self._read)
            whole, _, _ = file.read().rpartition(b"\n")  # the last line may still be written
            found = whole.splitlines()
            self._inode, self._read = about.st_ino, (0 if replaced else self._read) + len(whole) + bool(found)
            if replaced:
                alike = takewhile(lambda pair: pair[0] == pair[1], zip(self.lines, found, strict=False))
                kept = sum(1 for _ in alike)
                self.lines, found = self.lines[:kept], found[kept:]
            self.lines += found
            return list(_entries(found))
        return []


def _entries(lines: Sequence[bytes]) -> Iterator[Entry]:
    for line in lines:
        with suppress(ValueError, RecursionError):
            entry = json.loads(line)
            if isinstance(entry, dict) and isinstance(entry.get("step"), int):
                yield entry


def entry_lines(entry: Entry, steps: int | None = None) -> Iterator[str]:
    """An entry for people.

    Args:
        steps: of the whole run, where they are known.
    """
    where = f"step {entry['step']:,}" + (f"/{steps:,}" if steps else "")
    if "samples" in entry:
        yield f"{where}  samples"
        yield from sample_lines(entry["samples"])
    elif "train_loss" in entry:
        seconds = _shown(entry.get("train_runtime"), ".0f")
        yield f"{where}  trained in {seconds} s, mean loss {_shown(entry['train_loss'])}"
    elif "loss" in entry:
        speed = next((name for name in entry if name.startswith("train_") and name.endswith("_per_second")), "")
        unit = speed.removeprefix("train_").removesuffix("_per_second").replace("_", " ")
        parts = (f"loss {_shown(entry['loss'])}", f"learning rate {_shown(entry.get('learning_rate'), '.2e')}")
        yield "  ".join([where, *parts, *([f"{_shown(entry[speed], ',.0f')} {unit}/s"] if speed else [])])
    elif any(name.startswith("eval_") for name in entry):
        for name in set_names(entry) or [""]:
            named = {figure: entry.get(in_set(figure, name) if name else f"eval_{figure}") for figure in FIGURES}
            told = (
                f"{figure.replace('_', ' ')} {_shown(value)}" for figure, value in named.items() if value is not None
            )
            yield "  ".join([where, f"evaluation {name}".strip(), *told])


def sample_lines(samples: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Answers to prompts, for people."""
    for sample in samples:
        yield f"  {sample['prompt']}"
        yield from (f"    {line}" for line in sample["answers"])


def _shown(value: Any, form: str = ".4f") -> str:
    return format(value, form) if isinstance(value, int | float) else str(value)
