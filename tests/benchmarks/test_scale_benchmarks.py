"""The simulation of a thousand nodes, and the reading of prepared data, at their smallest."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
sys.path.append(str(FOLDER))

import scale  # noqa: E402


def printed(script: str, *words: str) -> dict[str, list[list[str]]]:
    """The tables that a script prints, by the beginning of their titles."""
    done = subprocess.run([sys.executable, str(FOLDER / script), *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    tables = {}
    for part in done.stdout.split("### ")[1:]:
        title, _, _, _, *lines = part.strip().splitlines()
        tables[title] = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return tables


def test_the_simulation_prints_every_part() -> None:
    tables = printed("scale.py", "--quick", "--nodes", "10", "1000")
    begins = ["Cold start", "Checkpoints", "Restarts", "From the store", "Mixing"]
    assert [next(begin for begin in begins if title.startswith(begin)) for title in tables] == begins
    assert [len(rows) for rows in tables.values()] == [5, 6, 6, 4, 5]


def test_what_is_kept_is_what_the_formulas_say() -> None:
    stretches = np.random.default_rng(1).exponential(size=100_000)
    cost, mtbf = 30.0, 36_000.0
    interval, share = scale.best(cost, 0.0, mtbf, stretches)
    young = scale.young_daly(cost, mtbf)
    assert young == pytest.approx(math.sqrt(2 * cost * mtbf))
    assert interval == pytest.approx(young, rel=0.2)
    # Exactly, for failures without memory: a stretch of work is kept if none comes in it and its checkpoint.
    cycle = interval + cost
    exact = interval / mtbf / math.expm1(cycle / mtbf)
    assert share == pytest.approx(exact, rel=0.01)
    assert scale.useful(young, cost, 3600, mtbf, stretches) < scale.useful(young, cost, 60, mtbf, stretches)


def test_lanes_and_windows_do_what_they_are_for() -> None:
    assert scale.fetched(shards=32, each=20, batch=8, processes=4, lanes=1, window=40) == 1
    assert scale.fetched(shards=32, each=20, batch=8, processes=4, lanes=8, window=10) == 0.25
    narrow, _ = scale.mixing(32, 40, batch=16, lanes=1, window=40, sources=4)
    wide, _ = scale.mixing(32, 40, batch=16, lanes=1, window=32 * 40, sources=4)
    assert wide == pytest.approx(1, abs=0.15) and narrow > 3


def test_reading_is_measured(tmp_path: Path) -> None:
    (rows,) = printed("prepared.py", "--tokens", "300000", "--shard_size", "0.1", "--url", str(tmp_path)).values()
    figures = {name: float(value.replace(",", "")) for name, value in rows}
    assert figures["tokens/s"] > 0 and figures["memory at most, MB"] >= figures["of it imports, MB"] > 0
    assert len(list(tmp_path.glob("train-*.bin"))) == 7
