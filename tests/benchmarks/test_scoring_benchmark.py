"""The benchmark of scores compares with the libraries that are there, and says which are not."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "scoring.py"
LIBRARIES = {"minicons": "minicons", "lm-eval": "lm_eval"}


def test_every_library_that_is_there_agrees() -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--texts", "4", "--only", "agreement"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    missing = [name for name, module in LIBRARIES.items() if importlib.util.find_spec(module) is None]
    said = f"left out, since it is not installed: pip install {' '.join(missing)}\n"
    assert done.stderr == said if missing else "left out" not in done.stderr
    rows = [line for line in done.stdout.splitlines() if re.match(r"\| (roberta|bert|modernbert|gpt2|llama) ", line)]
    assert len(rows) == 6 * ("minicons" not in missing) + 4 * ("lm-eval" not in missing)


def test_a_plain_loop_says_the_same() -> None:
    command = [sys.executable, str(SCRIPT), "--texts", "4", "--only", "speed", "--rounds", "1", "--quick"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in done.stdout.splitlines() if "|" in line]
    (plain,), (ours,) = ([row for row in rows if row[0] == name] for name in ("plain loop", "lmtasks.score"))
    assert plain[2] == "1.00" and float(plain[1]) > 0
    assert float(ours[1]) > 0
    assert float(ours[3]) < 1e-6
