"""What the benchmarks have in common: alternation, medians, tables, and how fast the machine multiplies."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import torch

Figure = TypeVar("Figure")

# When it is imported it tells of kernels that it would have fetched.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

SIZES = (1024, 2048, 4096, 8192)
"""Sides of the square matrices that the peak rate is looked for with."""

PATIENCE = 2.0
"""Seconds of a product after which no larger one is tried."""


SCRIPT = str(Path(sys.executable).with_name("lmtasks"))
"""The command, as people start it."""

_clock = time.perf_counter


def now() -> float:
    """Seconds, of which only differences say something."""
    return _clock()


def run(*words: str) -> tuple[float, dict[str, float]]:
    """Seconds of a fresh ``lmtasks run`` without a network, imports included, and its figures, with its ``steps``."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        command = [SCRIPT, "run", *words, "--json", "--output_dir", f"{folder}/run"]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
        seconds = time.perf_counter() - began
        lines = map(json.loads, Path(folder, "run", "log.jsonl").read_text().splitlines())
        return seconds, {**json.loads(done.stdout)["metrics"], "steps": max(line["step"] for line in lines)}


def on_one_thread() -> None:
    """Compute on one thread from now on, and count its processor's time, which other programs hardly change."""
    global _clock
    import torch

    torch.set_num_threads(1)
    _clock = time.process_time


def alternated(contestants: Mapping[str, Callable[[], Figure]], rounds: int) -> dict[str, list[Figure]]:
    """What each contestant gives, round by round: a busy moment, or a hot processor, hits them all."""
    figures: dict[str, list[Figure]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, contestant in contestants.items():
            figures[name].append(contestant())
    return figures


def medians(figures: Mapping[str, Iterable[float]]) -> dict[str, float]:
    return {name: statistics.median(values) for name, values in figures.items()}


def print_table(title: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    print(f"\n### {title}\n")
    print(f"| {' | '.join(header)} |")
    print("|" + "---|" * len(header))
    for row in rows:
        print(f"| {' | '.join(row)} |", flush=True)


@contextlib.contextmanager
def quiet_place() -> Iterator[Path]:
    """A folder for all that is written, tokens included, and nothing on the screen but what a benchmark prints."""
    import datasets
    import transformers

    transformers.logging.set_verbosity_error()
    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        yield Path(folder)


def chosen_device(name: str) -> torch.device:
    """The device of this name; for "auto" the GPU if there is one."""
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def described(device: torch.device) -> str:
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} threads"


def synchronize(device: torch.device) -> None:
    """Wait for what was only handed over to the device."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_rate(device: torch.device, dtype: torch.dtype, sizes: Sequence[int] = SIZES) -> float:
    """Floating-point operations per second of ``torch.mm``, in the best of several sizes."""
    best = 0.0
    for size in sizes:
        seconds = _product_seconds(device, dtype, size)
        best = max(best, 2 * size**3 / seconds)
        if seconds > PATIENCE:
            break
    return best


def _product_seconds(device: torch.device, dtype: torch.dtype, size: int) -> float:
    """Seconds per product, in the fastest of three bursts after a first one."""
    import torch

    one, other = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    result = torch.empty_like(one)
    # A single product on a GPU takes no longer than to hand it over.
    burst = 10 if device.type == "cuda" else 1
    seconds = []
    for _ in range(4):
        synchronize(device)
        began = now()
        for _ in range(burst):
            torch.mm(one, other, out=result)
        synchronize(device)
        seconds.append((now() - began) / burst)
    return min(seconds[1:])


@dataclass(frozen=True)
class Shape:
    """A model of the usual form: an inner layer four times as wide, and embeddings shared with the head.

    Args:
        dense: whether the head has a layer of its own before the vocabulary, as RoBERTa's does.
        causal: whether a token sees only those before it, which is half of all pairs.
    """

    layers: int
    hidden: int
    vocabulary: int
    dense: bool
    causal: bool

    @property
    def heads(self) -> int:
        """Heads of 64, as they mostly are."""
        return max(1, self.hidden // 64)

    def products(self, batch: int, length: int, targets: float, training: bool = True) -> float:
        """Floating-point operations of the matrix products of a step.

        Where at most half of the tokens are targets, of the last layer only keys, values and what attention makes of
        them are for all tokens.

        Args:
            batch, length: of the input.
            targets: positions at which the head is needed.
            training: forward and twice as much backward, not forward only.
        """
        tokens = batch * length
        few = targets if targets <= tokens / 2 else tokens
        body = self.hidden**2 * ((12 * self.layers - 10) * tokens + 10 * few)
        pairs = batch * length**2 * (0.5 if self.causal else 1.0)
        attention = 2 * self.hidden * self.layers * pairs
        head = self.hidden * (self.vocabulary + (self.hidden if self.dense else 0)) * targets
        return (6 if training else 2) * (body + attention + head)
