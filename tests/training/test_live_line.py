"""The line that a terminal shows while a model trains."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
import torch

from lmtasks.training import live_line
from lmtasks.training.live_line import LiveLine, memory, short, sparkline


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch) -> LiveLine:
    """Of a run of 200 steps that went on from step 50, ten seconds ago."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(live_line, "memory", lambda device: 3 << 29)
    made = LiveLine(200, 50, 1024, "tokens", torch.device("cpu"))
    now[0], made.step, made.losses = 110.0, 100, [4.0, 3.0, 2.0, 1.0]
    return made


def test_it_tells_how_far_how_well_how_fast_how_long_and_how_much(line: LiveLine) -> None:
    assert line(80, True) == "training  50%  █▆▃▁  loss 1.000  5.12k tokens/s  20 s left  1.5 GiB"


@pytest.mark.parametrize(
    ("columns", "text"),
    [
        (60, "training  50%  █▆▃▁  loss 1.000  5.12k tokens/s  20 s left"),
        (56, "training  50%  loss 1.000  5.12k tokens/s  20 s left"),
        (45, "training  50%  loss 1.000  20 s left"),
        (30, "training  50%  loss 1.000"),
        (10, "training  "),
    ],
)
def test_what_matters_least_gives_way_where_there_is_no_room(line: LiveLine, columns: int, text: str) -> None:
    assert line(columns, True) == text


def test_without_blocks_there_is_no_curve(line: LiveLine) -> None:
    assert line(80, False) == "training  50%  loss 1.000  5.12k tokens/s  20 s left  1.5 GiB"


def test_before_the_first_step_and_loss_nothing_is_made_up(line: LiveLine) -> None:
    line.step, line.losses = 50, []
    assert line(80, True) == "training  25%  1.5 GiB"


def test_the_curve_goes_from_the_least_to_the_most() -> None:
    assert sparkline([]) == ""
    assert sparkline([2.0, 2.0]) == "▁▁"
    assert sparkline([0.0, 7.0, 3.0, float("nan"), 1.0]) == "▁█▄ ▂"
    assert sparkline([float(one) for one in range(32)]) == sparkline([float(one) for one in range(1, 32, 2)])
    assert len(sparkline([1.0, 2.0] * 50)) == 16


def test_numbers_are_short() -> None:
    assert [short(one) for one in (3, 999.4, 999.6, 12_345, 999_600, 5e8, 2e9)] == [
        "3", "999", "1k", "12.3k", "1M", "500M", "2G"
    ]  # fmt: skip


def test_memory_is_that_of_this_process() -> None:
    before = memory(torch.device("cpu"))
    held = torch.ones(64 << 20, dtype=torch.uint8)
    assert memory(torch.device("cpu")) - before > held.nbytes // 2


def shown(command: list[str], folder: Path, **environment: str) -> str:
    """What a command writes on a terminal of 80 columns."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    known = {**os.environ, "PYTHONIOENCODING": "utf-8", "TERM": "xterm", **environment}
    process = subprocess.Popen(command, stderr=theirs, stdout=subprocess.DEVNULL, cwd=folder, env=known)
    os.close(theirs)
    said = b""
    while process.poll() is None or select.select([ours], [], [], 0)[0]:
        if select.select([ours], [], [], 0.1)[0]:
            try:
                said += os.read(ours, 65536)
            except OSError:  # all of it was read
                break
    os.close(ours)
    assert process.wait() == 0, said.decode()
    return said.decode()


def test_a_run_on_a_terminal_shows_it(text_file: Path, tmp_path: Path) -> None:
    flags = ["--train_file", str(text_file), "--max_steps", "300", "--output_dir", "out", "--logging_steps", "5"]
    small = [
        "--config_overrides",
        "num_hidden_layers=2,hidden_size=32,num_attention_heads=2",
        "--max_eval_samples",
        "2",
    ]
    said = shown([sys.executable, "-m", "lmtasks", "run", "causal-lm", *flags, *small], tmp_path, NO_COLOR="1")
    lines = [one for one in re.split(r"[\r\n]", said) if one.startswith("training ")]
    found = [one for one in lines if re.match(r"training +\d+%  [▁-█]{2,16}  loss \d\.\d{3}  \S+ tokens/s  ", one)]
    assert found, said
    assert max(map(len, lines)) <= 80
    assert "\x1b[3" not in said, "colours"
