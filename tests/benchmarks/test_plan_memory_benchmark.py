"""What a plan foresees stands beside what was measured."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "plan_memory.py"


def test_each_way_of_training_has_a_row() -> None:
    command = [sys.executable, str(SCRIPT), "--quick", "--only", "llama"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    rows = re.findall(r"^\| llama, 1 × 64, 2 × 16 tokens \| (\w+) \| (\d+) \| (\d+) \| [+-]\d+% \|$", done.stdout, re.M)
    assert [how for how, *_ in rows] == ["float32", "adapter", "bfloat16"], done.stderr
    off = sum(abs(int(foreseen) / int(measured) - 1) > 0.15 for _, foreseen, measured in rows)
    assert f"{3 - off} of 3 plans are within 15%." in done.stdout
    assert done.returncode == (1 if off else 0)
