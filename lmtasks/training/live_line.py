"""The line that a terminal shows while a model trains: how far, how the loss goes, how fast, how long, how much memory.

Without colours, so that it looks alike wherever it is shown.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch

from lmtasks.progress import duration

BLOCKS = "▁▂▃▄▅▆▇█"

POINTS = 16
"""Losses in the sparkline; of more, the last of each part are shown."""


class LiveLine:
    """What is known of a training, as a line.

    Args:
        total: steps of the run.
        first: the step that it goes on from.
        per_step: how many of the unit a step takes.
        device: that it computes on.
    """

    def __init__(self, total: int, first: int, per_step: int, unit: str, device: torch.device) -> None:
        self.total, self.first, self.per_step, self.unit, self.device = total, first, per_step, unit, device
        self.step, self.losses = first, list[float]()
        self.began = time.monotonic()

    def __call__(self, columns: int, blocks: bool) -> str:
        """The line, at most so wide; what matters least is left out first."""
        elapsed, done = time.monotonic() - self.began, self.step - self.first
        rate = done / max(elapsed, 1e-9)
        held = memory(self.device)
        parts = {
            "stage": f"training {self.step / max(1, self.total):4.0%}",
            "curve": sparkline(self.losses) if blocks else "",
            "loss": f"loss {self.losses[-1]:.3f}" if self.losses else "",
            "speed": f"{short(rate * self.per_step)} {self.unit}/s" if done else "",
            "left": f"{duration((self.total - self.step) / rate)} left" if done else "",
            "memory": f"{held / 2**30:.1f} GiB" if held else "",
        }
        for dispensable in ("", "memory", "curve", "speed", "left"):
            parts.pop(dispensable, None)
            if len(line := "  ".join(filter(None, parts.values()))) <= columns:
                break
        return line[:columns]


def sparkline(values: Sequence[float]) -> str:
    """Values as blocks, the least as the lowest; those that are no numbers as spaces."""
    parts = min(POINTS, len(values))
    shown = [values[(number + 1) * len(values) // parts - 1] for number in range(parts)]
    finite = [value for value in shown if math.isfinite(value)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    scale = (len(BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(BLOCKS[round((value - low) * scale)] if math.isfinite(value) else " " for value in shown)


def short(number: float) -> str:
    """A number in at most four characters or so: 950, 12.3k, 4.5M."""
    for unit in ("", "k", "M"):
        if number < 999.5:
            return f"{number:.0f}" if not unit else f"{number:.3g}{unit}"
        number /= 1000
    return f"{number:.3g}G"


def memory(device: torch.device) -> int:
    """Bytes that this process has of the device's memory, or of the machine's where that computes; 0 if nobody says."""
    if device.type == "cuda":
        return torch.cuda.memory_reserved(device)
    with suppress(OSError):  # only Linux has it
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0
