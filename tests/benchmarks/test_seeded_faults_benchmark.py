"""Seeded faults are counted, and one that nobody finds is told."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import seeded_faults

TESTS = """
import pytest

@pytest.mark.seeded
@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_number_is_found(number):
    assert number < 3

def test_of_something_else():
    pass
"""


def test_what_is_not_found_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "test_seeded.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = seeded: a fault\n")
    monkeypatch.setattr(seeded_faults, "TESTS", tmp_path)
    monkeypatch.setattr(seeded_faults, "WANTED", 2)
    assert seeded_faults.main() == 1
    assert "| a number is found | 3 | 2 |\n| all | 3 | 2 |" in capfd.readouterr().out
    (tmp_path / "test_seeded.py").write_text(TESTS.replace("[1, 2, 3]", "[1, 2]"))
    assert seeded_faults.main() == 0
    monkeypatch.setattr(seeded_faults, "WANTED", 3)
    assert seeded_faults.main() == 1
