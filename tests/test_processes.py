"""Two processes do together what one does alone: the same numbers, one voice, one set of files."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lmtasks.runner import run

MODELS = {"masked-lm": "modernbert", "causal-lm": "llama"}
"""Without dropout, whose draws do depend on the process."""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def in_two_processes(*words: str) -> dict[str, Any]:
    """A command under torchrun; what it printed, which must be one JSON document."""
    # A fixed port instead of --standalone: that one keeps keys of an earlier start (pytorch issue 167288).
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", str(free_port())]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *launcher, "-m", "lmtasks", *words, "--json"], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("model      ") == 1, "the plan is said once"
    return dict(json.loads(done.stdout))


@pytest.mark.parametrize("recipe", MODELS)
def test_two_processes_give_the_numbers_of_one(
    recipe: str, model_folders: dict[str, Path], text_file: Path, tmp_path: Path
) -> None:
    asked = {
        "model": str(model_folders[MODELS[recipe]]),
        "train_file": str(text_file),
        "block_size": 16,
        "max_steps": 5,
        "logging_steps": 1,
        "learning_rate": 5e-3,
    }
    alone = run(recipe, **asked, per_device_train_batch_size=8, use_cpu=True, output_dir=str(tmp_path / "one"))
    words = [word for name, value in asked.items() for word in (f"--{name}", str(value))]
    together = in_two_processes(
        "run", recipe, *words, "--per_device_train_batch_size", "4", "--use_cpu", "--output_dir", str(tmp_path / "two")
    )
    for name in ("train_loss", "eval_loss", "unigram_loss", "accuracy", "eval_targets"):
        assert together["metrics"][name] == pytest.approx(alone.metrics[name], rel=1e-5), name
    logs = [
        [json.loads(line) for line in (tmp_path / f / "log.jsonl").read_text().splitlines()] for f in ("one", "two")
    ]
    assert [line["step"] for line in logs[0]] == [line["step"] for line in logs[1]]
    for one, two in zip(*logs, strict=True):
        for name in {"loss", "grad_norm"} & one.keys():
            assert two[name] == pytest.approx(one[name], rel=1e-4), (name, one["step"])
    assert {path.name for path in (tmp_path / "one").iterdir()} == {path.name for path in (tmp_path / "two").iterdir()}
