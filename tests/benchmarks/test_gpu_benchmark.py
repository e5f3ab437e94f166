"""The script for GPUs runs tiny on the CPU, and no row is lost with another."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def gpu() -> ModuleType:
    sys.path.insert(0, str(FOLDER))
    return importlib.import_module("gpu")


def rows_of(part: str) -> dict[str, list[str]]:
    command = [sys.executable, str(FOLDER / "gpu.py"), "--quick", "--only", part]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    assert f"### {part}" in done.stdout
    lines = [line.strip("|").split("|") for line in done.stdout.splitlines() if line.startswith("|")]
    return {cells[0].strip(): [cell.strip() for cell in cells[1:]] for cells in lines[2:]}


@pytest.mark.parametrize("part", ["steps, masked-lm 82 M", "steps, causal-lm 1 B"])
def test_steps(part: str) -> None:
    rows = rows_of(part)
    assert [*rows][:4] == ["guide", "guide, bf16", "lmtasks, float32", "lmtasks, bf16"]
    measured = {name: cells for name, cells in rows.items() if not cells[0].startswith("not measured")}
    assert [*measured] == [*rows][:4]
    assert all(float(cells[0].replace(",", "")) > 0 for cells in measured.values())
    assert all(5 < float(cells[4]) < 7 for cells in measured.values())
    assert rows["lmtasks, compiled"][0] == "not measured: compiled for GPUs only"
    assert "iger" in rows["lmtasks, Liger"][0], "without the package it is named, and so is a model it has nothing for"


def test_attention() -> None:
    rows = rows_of("attention, isolated documents")
    assert float(rows["the mask of a run"][1]) == 0
    assert float(rows["no mask, all see all"][1]) > 0.01, "documents that see each other come to something else"
    assert rows["flex_attention"][0] == rows["varlen_attn"][0] == "not measured: a kernel of GPUs"


def test_evaluation() -> None:
    rows = rows_of("evaluation, causal-lm 82 M")
    assert all(float(cells[0].replace(",", "")) > 0 for cells in rows.values())
    assert [*rows] == ["guide", "lmtasks"]


def test_a_part_that_dies_or_has_no_time_says_so_in_every_row(gpu: ModuleType) -> None:
    part = gpu.Part("nothing, such", ("a", "b"), ("one", "two"))
    for name, why, *rest in gpu.measured(part, 300.0, quick=True):
        assert name in part.rows
        assert why.startswith("not measured: the process ended with 1: ")
        assert "nothing" in why
        assert rest == [""]
    assert [row[1] for row in gpu.measured(part, 0.0, quick=True)] == ["not measured: no time left"] * 2


def test_what_was_measured_before_the_time_was_up_is_told(gpu: ModuleType) -> None:
    program = 'import time; print(\'["one", ["1"]]\', flush=True); time.sleep(60)'
    told, why = gpu.output([sys.executable, "-c", program], 5.0)
    assert told == '["one", ["1"]]\n'
    assert why == "not measured: its time was up"


def test_a_row_that_fails_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    import gpu_rows

    def failing() -> Any:
        raise MemoryError("no\nroom")

    assert gpu_rows.told(failing) == "not measured: no room"
    assert gpu_rows.told(lambda: ("1", "2")) == ["1", "2"]
