"""Tries by number: each has a generator of its own, so that one can be repeated alone, and several run side by side."""

from __future__ import annotations

import multiprocessing
import random
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path


@dataclass(frozen=True)
class Setting:
    """How a row is measured.

    Args:
        folder: for everything that is written.
        seed: of the generators.
        jobs: tries side by side.
        count: tries at most; None for as many as the row has.
        only: the number of the only try.
        keep: where the folders of failed tries go, if anywhere.
    """

    folder: Path
    seed: int = 0
    jobs: int = 1
    count: int | None = None
    only: int | None = None
    keep: Path | None = None

    def numbers(self, usual: int) -> Sequence[int]:
        """The numbers of the tries of a row that usually has so many."""
        return range(usual if self.count is None else self.count) if self.only is None else [self.only]


@dataclass(frozen=True)
class Tried:
    """What came of a row.

    Args:
        tried: how many tries there were.
        failures: a line for each try, or finding, that is not as promised.
        detail: lines to be told below the table.
    """

    tried: int
    failures: list[str] = field(default_factory=list)
    detail: list[str] = field(default_factory=list)


Attempt = Callable[[Path, random.Random, int], list[str]]
"""A try in an empty folder: what is wrong, in lines, none where all is as promised."""


def carried_out(row: str, attempt: Attempt, numbers: Sequence[int], setting: Setting) -> Tried:
    """All tries of a row; progress goes to stderr."""
    failures: list[str] = []
    results = _each(partial(_one, row, attempt, setting), numbers, setting.jobs)
    for done, (number, wrong) in enumerate(results, 1):
        if wrong:
            again = f"python benchmarks/faults.py --only '{row}' --seed {setting.seed} --try {number}"
            failures.append(f"{row}, try {number}: {'; '.join(wrong)} (again: `{again}`)")
        print(f"{row}: {done} of {len(numbers)}, {len(failures)} not as promised", file=sys.stderr, flush=True)
    return Tried(len(numbers), failures)


def _each(
    one: Callable[[int], tuple[int, list[str]]], numbers: Sequence[int], jobs: int
) -> Iterator[tuple[int, list[str]]]:
    if jobs == 1 or len(numbers) == 1:
        yield from map(one, numbers)
        return
    # Forked, so that what was imported once is there, and so that each waits for its own children only.
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("fork")) as pool:
        yield from pool.map(one, numbers)


def _one(row: str, attempt: Attempt, setting: Setting, number: int) -> tuple[int, list[str]]:
    folder = setting.folder / row.replace(" ", "-") / str(number)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        wrong = attempt(folder, random.Random(f"{setting.seed} {row} {number}"), number)
    except Exception:  # a mistake of ours must not hide what the other tries found
        wrong = [f"the try itself failed: {' '.join(traceback.format_exc().split())}"]
    if wrong and setting.keep:
        kept = setting.keep / folder.parent.name / folder.name
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(folder, kept, symlinks=True)
    shutil.rmtree(folder)
    return number, wrong
