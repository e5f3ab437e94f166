"""The kit's checks of a launcher, with the one that is built in; and that one on two machines, here on one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from launched import distance, free_port, lines_of

from lmtasks.builtin.launchers import TORCHRUN
from lmtasks.testing import check_launcher
from lmtasks.testing.launching import KILLED


def test_torchrun_keeps_the_contract() -> None:
    proof = check_launcher(TORCHRUN, restarting={"max_restarts": 1})
    assert {name: outcome.state for name, outcome in proof.checks.items() if outcome.state != "ok"} == {}


def test_two_machines_meet_and_start_again_together(
    model_folders: dict[str, Path], text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("killed.py").write_text(KILLED)
    asked = {
        "model": model_folders["modernbert"], "train_file": text_file, "block_size": 16, "max_steps": 5,
        "train_batch_size": 8, "save_steps": 2, "logging_steps": 1,
    }  # fmt: skip
    words = [word for name, value in asked.items() for word in (f"--{name}", str(value))]
    run = [sys.executable, "-m", "lmtasks", "run"]
    one = subprocess.run([*run, "masked-lm", *words, "--use_cpu", "--output_dir", "one"], capture_output=True)
    assert one.returncode == 0
    place = f"127.0.0.1:{free_port()}"
    launch = ["--num_nodes", "2", "--torchrun.rdzv_endpoint", place, "--torchrun.local_addr", "127.0.0.1"]
    command = [*run, "./killed.py", *words, "--use_cpu", "--output_dir", "two", *launch, "--torchrun.max_restarts", "1"]
    machines = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    told = [machine.communicate(timeout=300)[1] for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], told
    assert Path("killed").exists()
    assert sum(text.count("note       goes on after step 2 of 5, from checkpoint-2") for text in told) == 1
    losses = [
        [line["loss"] for line in lines_of(Path(folder, "log.jsonl")) if "loss" in line] for folder in ("one", "two")
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert distance(Path("one"), Path("two")) < 1e-4
