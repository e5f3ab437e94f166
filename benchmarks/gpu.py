"""What only a GPU can tell, in one command and in less than eight minutes, all tables at once.

    python benchmarks/gpu.py [--seconds 460] [--only steps] [--quick]

- Steps: the guide's Trainer in float32 and bf16, and lmtasks' eager, compiled and with Liger's kernels, for models of
  82 M, 350 M and 1 B weights: tokens per second, peak memory, and what share of the peak of ``torch.mm`` in bf16 the
  products of a step come to.
- Isolated documents: attention with the mask of a run, against kernels that skip what no token sees.
- Evaluation: tokens per second. Prediction: the tables of ``prediction.py``.

Needs a checkout with its packages, and no network. Each part is a process of its own and each row stands alone: one
that cannot run says why, and one for which no time is left says so. ``--quick`` is tiny and on the CPU, to see that it
works.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from measuring import print_table

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Part:
    """A table that a process of its own makes, row by row: ``gpu_rows.py NAME``.

    Args:
        header: names of its figures.
        rows: what is measured, in this order.
    """

    name: str
    header: tuple[str, ...]
    rows: tuple[str, ...]


STEP_ROWS = ("guide", "guide, bf16", "lmtasks, float32", "lmtasks, bf16", "lmtasks, compiled", "lmtasks, Liger")
STEP_HEADER = ("tokens/s", "ms per step", "peak memory, GiB", "of the bf16 peak", "evaluation loss")
ATTENTION_ROWS = ("the mask of a run", "no mask, all see all", "flex_attention", "varlen_attn")

# In this order: what no time is left for should be what is wanted least.
PARTS = (
    Part("steps, masked-lm 82 M", STEP_HEADER, STEP_ROWS),
    Part("steps, causal-lm 82 M", STEP_HEADER, STEP_ROWS),
    Part("steps, causal-lm 1 B", STEP_HEADER, STEP_ROWS),
    Part("attention, isolated documents", ("ms, forward and backward", "off by"), ATTENTION_ROWS),
    Part("evaluation, masked-lm 82 M", ("tokens/s",), ("guide", "lmtasks")),
    Part("evaluation, causal-lm 82 M", ("tokens/s",), ("guide", "lmtasks")),
    Part("steps, causal-lm 350 M", STEP_HEADER, STEP_ROWS),
    Part("steps, masked-lm 350 M", STEP_HEADER, STEP_ROWS),
)

PREDICTION = ("--texts", "512", "--batch_size", "64", "--rounds", "1")
FOR_PREDICTION = 100.0
"""Seconds that the parts before leave for it."""


def measured(part: Part, seconds: float, *, quick: bool) -> Iterator[list[str]]:
    """The rows of a part; in place of its figures, why a row has none."""
    command = [sys.executable, str(FOLDER / "gpu_rows.py"), part.name, str(seconds), *(["--quick"] if quick else [])]
    told, why = output(command, seconds)
    found = dict(json.loads(line) for line in told.splitlines() if line.startswith("["))
    for row in part.rows:
        cells = found.get(row, why)
        yield [row, *cells] if isinstance(cells, list) else [row, cells, *[""] * (len(part.header) - 1)]


def output(command: Sequence[str], seconds: float) -> tuple[str, str]:
    """What a process said until its time was up, and why it said no more."""
    if seconds < 1:
        return "", "not measured: no time left"
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired as stopped:
        said = stopped.stdout or b""
        return said.decode() if isinstance(said, bytes) else said, "not measured: its time was up"
    last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
    return done.stdout, f"not measured: the process ended with {done.returncode}: {last[:200]}"


def print_prediction(seconds: float, *, quick: bool) -> None:
    how = ["--quick"] if quick else PREDICTION
    told, why = output([sys.executable, str(FOLDER / "prediction.py"), *how], seconds)
    print(f"\n### prediction\n{told or why}")


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=460, help="after which nothing is begun, or goes on")
    parser.add_argument("--only", default="", help="parts whose name begins so: steps, causal-lm 1 B")
    parser.add_argument("--quick", action="store_true", help="tiny models on the CPU: to see that it works")
    given = parser.parse_args(words)
    end = time.monotonic() + given.seconds
    parts = [part for part in PARTS if part.name.startswith(given.only)]
    predicting = "prediction".startswith(given.only)
    if not parts and not predicting:
        parser.error(f"--only: the parts are {'; '.join(part.name for part in PARTS)}; prediction")
    for part in parts:
        left = end - time.monotonic() - (FOR_PREDICTION if predicting and not given.quick else 0)
        print_table(part.name, ("what", *part.header), measured(part, left, quick=given.quick))
    if predicting:
        print_prediction(end - time.monotonic(), quick=given.quick)


if __name__ == "__main__":
    main()
