"""The benchmark of prediction runs, and its rows answer alike."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "prediction.py"


@pytest.fixture(scope="module")
def tables() -> list[list[list[str]]]:
    """The tables of a quick run: rows of cells, without the header."""
    done = subprocess.run([sys.executable, str(SCRIPT), "--quick"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    parts = done.stdout.split("|---|---|---|---|\n")[1:]
    return [[line.strip("| ").split(" | ") for line in part.splitlines() if line.startswith("| ")] for part in parts]


def rows_of(table: list[list[str]]) -> list[str]:
    return [row[0] for row in table if row[0] != "way"]


def test_every_way_has_its_row(tables: list[list[list[str]]]) -> None:
    answering = ["lmtasks.predict", "guide: pipeline on a list", "guide: pipeline, batch_size=4"]
    masked, causal, ending = tables
    assert rows_of(masked) == [*answering, "bare model, packed", "bare model, packed, logits of the masks"]
    assert rows_of(causal) == [*answering, "bare model, packed"]
    assert rows_of(ending) == answering


def test_rates_are_numbers_and_relative_to_the_guides(tables: list[list[list[str]]]) -> None:
    for table in tables:
        for name, rate, ratio, _ in (row for row in table if row[0] != "way"):
            assert float(rate) > 0
            assert re.fullmatch(r"\d+\.\d\d", ratio)
            assert name != "guide: pipeline on a list" or ratio == "1.00"


def test_all_that_answer_answer_the_same(tables: list[list[list[str]]]) -> None:
    for table in tables:
        told = [row[3] for row in table if row[0] != "way"]
        assert told == ["100.0%"] * 3 + ["–"] * (len(told) - 3)
