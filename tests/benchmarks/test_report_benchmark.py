"""The script about reports measures those of real runs, and sees what a page would fetch."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "report.py"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    spec = importlib.util.spec_from_file_location("report_benchmark", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_a_page_would_fetch(script: ModuleType) -> None:
    page = """<link rel=icon href="data:,"><link href="/style.css"><a href="https://a.test">a</a>
    <img src="data:image/png;base64,AA"><img src="//b.test/c.png"><svg><use href="#d"/></svg>
    <style>@import "e.css"; p { background: url(f.png) }</style>"""
    assert sorted(script.Addresses(page).found) == ["//b.test/c.png", "/style.css", "@import", "f.png"]


def test_reports_of_both_runs() -> None:
    done = subprocess.run([sys.executable, str(SCRIPT), "--max_steps", "2"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in done.stdout.splitlines() if "|" in line]
    assert rows[0] == ["run", "MB", "s", "addresses"]
    assert rows[-1] == ["wanted", "< 5", "< 5", "0"]
    for name, (run, size, seconds, addresses) in zip(("masked-lm", "causal-lm"), rows[2:4], strict=True):
        assert run == f"lmtasks run {name}"
        assert 0.01 < float(size) < 5
        assert float(seconds) > 0.01
        assert addresses == "0"
