"""The benchmark of quality trains both ways, and judges both with the same figures."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def against_guide() -> ModuleType:
    sys.path.insert(0, str(FOLDER))
    return importlib.import_module("against_guide")


def test_both_train_and_are_judged_alike() -> None:
    command = [sys.executable, str(FOLDER / "against_guide.py"), "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    lines = [line.strip("| ").split(" | ") for line in done.stdout.splitlines() if line.startswith("|")]
    rows = {cells[0]: cells[1:] for cells in lines[2:]}
    assert rows.keys() == {"masked-lm", "causal-lm"}
    for guide, ours, difference, _, _, reported in rows.values():
        assert abs(float(difference)) < 0.01, "the same steps at the same rate come to the same loss"
        assert abs(float(ours.split()[0]) - float(reported)) < 0.02
        assert 5 < float(guide.split()[0]) < 6.2
    # Of 32 labels of a block 31 are targets, and the Trainer divides by all.
    guide, *_, reported, _ = rows["causal-lm"]
    assert float(reported) == pytest.approx(float(guide.split()[0]) * 31 / 32, abs=0.002)


def test_a_difference_is_told_in_standard_errors(against_guide: ModuleType) -> None:
    guide = against_guide.Losses(judged=[1.0, 2.0, 3.0], reported=[0.0] * 3)
    ours = against_guide.Losses(judged=[2.0, 3.0, 4.0], reported=[0.0] * 3)
    difference, error = against_guide.above(guide, ours)
    assert (guide.mean, difference) == (2.0, 1.0)
    assert error == pytest.approx((2 / 3) ** 0.5)
    assert against_guide.row("r", {"guide": guide, "lmtasks": ours})[3:5] == ["+1.0000", "+1.2"]
    one = against_guide.Losses(judged=[1.0], reported=[1.0])
    assert against_guide.row("r", {"guide": one, "lmtasks": one})[4] == "unknown"
