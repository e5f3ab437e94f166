"""The benchmark of mixes prints shares and orders, and fails where a share is off."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "mixing.py"


def asked(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True)


def test_shares_and_order() -> None:
    done = asked("--tokens", "100000", "--block", "16")
    assert done.returncode == 0, done.stderr
    assert "| first | 0.8 | 80,000 | 0.80000 | 0.00000% |" in done.stdout
    assert done.stdout.count("| yes |") == 3


def test_too_few_blocks_for_the_shares_are_told() -> None:
    done = asked("--tokens", "1000", "--block", "120")
    assert done.returncode == 1
    assert "| first | 0.8 | 720 | 0.85714 | 5.71429% |" in done.stdout
