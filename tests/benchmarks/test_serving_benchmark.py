"""The benchmark of the server runs, and knows whether answers are mixed up."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "serving.py"


def test_a_quick_run_loses_nothing() -> None:
    done = subprocess.run([sys.executable, str(SCRIPT), "--quick"], capture_output=True, text=True)
    assert "lost or mixed up: 0 of 480" in done.stdout, done.stdout + done.stderr
    rows = [line.strip("| ").split(" | ") for line in done.stdout.splitlines() if line.startswith("| ")]
    assert [row[0] for row in rows] == ["who asks", "1 client", "8 clients, --batch_size 1", "8 clients"]
    assert [row[1] for row in rows[1:]] == ["40", "40", "400"]


GUESSES = [
    {"token": 3, "score": 0.5, "sequence": "a b"},
    {"token": 4, "score": 0.1, "sequence": "a c"},
    {"token": 5, "score": 0.1, "sequence": "a d"},
]


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (GUESSES, True),
        ([GUESSES[0], GUESSES[2], GUESSES[1]], True),
        ([{**GUESSES[0], "score": 0.500001}, *GUESSES[1:]], True),
        ([{**GUESSES[0], "score": 0.51}, *GUESSES[1:]], False),
        ([{**GUESSES[0], "sequence": "b b"}, *GUESSES[1:]], False),
        ([{**guess, "token": guess["token"] + 9} for guess in GUESSES], False),
        (GUESSES[:2], False),
        ({"status": "503"}, False),
        (None, False),
    ],
)
def test_an_answer_to_another_text_is_seen(other: Any, same: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    spec = importlib.util.spec_from_file_location("serving_benchmark", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    assert module.same(GUESSES, other) is same
