"""Commands in two processes, as torchrun starts them, and what they leave."""

from __future__ import annotations

import json
import math
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from safetensors.torch import load_file


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def two_processes(*words: str) -> subprocess.CompletedProcess[str]:
    """A command under torchrun."""
    # A fixed port instead of --standalone: that one keeps keys of an earlier start (pytorch issue 167288).
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", str(free_port())]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *launcher, "-m", "lmtasks", *words]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def in_two_processes(*words: str) -> dict[str, Any]:
    """What a command under torchrun has printed, which must be one JSON document."""
    done = two_processes(*words, "--json")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("model      ") == 1, "the plan is said once"
    return dict(json.loads(done.stdout))


def first_document(process: subprocess.Popen[str]) -> dict[str, Any]:
    """The JSON document that a command prints once it serves."""
    assert process.stdout is not None
    lines = []
    while not lines or lines[-1] != "}\n":
        lines.append(process.stdout.readline())
        assert lines[-1], f"it ended with {process.wait()}: {process.stderr and process.stderr.read()}"
    return dict(json.loads("".join(lines)))


def lines_of(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


def losses_of(folder: Path) -> list[float]:
    """Of each step that was logged."""
    return [line["loss"] for line in lines_of(folder / "log.jsonl") if "loss" in line]


def distance(one: Path, other: Path) -> float:
    """Euclidean, over all weights."""
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (one, other))
    assert ours.keys() == theirs.keys()
    return math.sqrt(sum(float((ours[name] - theirs[name]).double().square().sum()) for name in ours))
