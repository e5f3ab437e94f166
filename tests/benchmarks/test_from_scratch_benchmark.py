"""The script about models from scratch carries out its commands, and judges by the mean over the seeds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "from_scratch.py"


@pytest.mark.parametrize(("text", "code"), [("the cat sat on the mat, and so on\n" * 400, 0), ("", 1)])
def test_gaps_by_seed(text: str, code: int, text_file: Path, tmp_path: Path) -> None:
    """Lines that are always the same can be learned; of little text that is not, a model only learns to be wrong."""
    path = tmp_path / "text.txt"
    path.write_text(text or text_file.read_text()[:2000])
    command = [sys.executable, str(SCRIPT), "--text", str(path), "--seeds", "2", "--only", "causal-lm, starter"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    header, _, row = done.stdout.splitlines()
    assert header == "| what | steps | seed 42 | seed 43 | mean |"
    name, steps, *gaps, mean = [cell.strip() for cell in row.strip("|").split("|")]
    assert name == "causal-lm, starter"
    assert 0 < int(steps) < 2000
    assert float(mean) == pytest.approx(sum(map(float, gaps)) / 2, abs=0.011)
    assert (float(mean) >= 0.5) == (code == 0)
