"""The benchmark of preprocessing runs anywhere, without arguments or files, and measures what it says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "preprocessing.py"


def test_it_prints_both_tables(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--quick"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    speed, memory = (table.splitlines()[2:] for table in done.stdout.strip().split("\n\n"))
    rates = {row.split("|")[1].strip(): [float(cell) for cell in re.findall(r"\d+\.\d+", row)] for row in speed}
    assert list(rates) == ["`encode_batch` alone", "lmtasks", "guide", "guide, `num_proc=4`"]
    assert rates["`encode_batch` alone"][1] == 1
    assert rates["lmtasks"][2] == 1
    assert all(rate > 0 for rate, *_ in rates.values())
    if Path("/proc/self/status").exists():
        peaks = [int(row.split("|")[2]) for row in memory]
        assert len(peaks) == 3
        assert all(50 < peak < 2000 for peak in peaks), "MiB of a process with torch or without"
    assert list(tmp_path.iterdir()) == []
