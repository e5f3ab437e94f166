"""A launcher that starts a killed run again, and again, brings it to its end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from launched import distance, free_port, in_two_processes, lines_of

from lmtasks.runs.runner import run

KILLED = """
import os
import signal
from dataclasses import replace
from pathlib import Path

from lmtasks.builtin.masked_lm import MASKED_LM

KILLS = {3: "1", 5: "0"}


def before_step(model, options, steps):
    killed = Path(f"killed-{steps}")
    if os.environ.get("RANK") == KILLS.get(steps, "nobody") and Path("kill").exists() and not killed.exists():
        killed.touch()
        os.kill(os.getpid(), signal.SIGKILL)


KILLED = replace(MASKED_LM, name="killed", before_step=before_step, starter=None)
"""

TORCHRUN = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--max_restarts", "2"]


@pytest.mark.parametrize("ours", [False, True], ids=["torchrun", "num_processes"])
def test_a_run_of_which_a_process_is_killed_twice_ends_byte_for_byte_as_one_that_is_not(
    ours: bool, model_folders: dict[str, Path], text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One process in the fourth step, the other in the sixth; and nobody says that the run is to go on."""
    monkeypatch.chdir(tmp_path)
    Path("killed.py").write_text(KILLED)
    asked = {
        "model": str(model_folders["modernbert"]), "train_file": str(text_file), "block_size": 16, "use_cpu": True,
        "max_train_samples": 26, "max_eval_samples": 7, "max_steps": 7, "train_batch_size": 8, "save_steps": 2,
        "logging_steps": 1,
    }  # fmt: skip
    words = [word for name, value in asked.items() for word in (f"--{name}", str(value))]
    run("masked-lm", **asked, output_dir="one")
    in_two_processes("run", "./killed.py", *words, "--output_dir", "whole")
    Path("kill").touch()
    command = ["-m", "lmtasks", "run", "./killed.py", *words, "--output_dir", "two"]
    if ours:
        command += ["--num_processes", "2", "--torchrun.max_restarts", "2"]
    else:
        command = [*TORCHRUN, f"--master_port={free_port()}", *command, "--resume_from_checkpoint", "auto"]
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert Path("killed-3").exists() and Path("killed-5").exists()
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) <= 2, "who was left says it once: that the other has gone, or that the launcher has stopped it"
    for step in (2, 4):
        assert f"note       goes on after step {step} of 7, from checkpoint-{step}" in done.stderr
    assert not Path("two/exit.json").exists(), "what an earlier attempt has said of its end is taken back"
    assert Path("two/model.safetensors").read_bytes() == Path("whole/model.safetensors").read_bytes()
    one, two, whole = (
        [line["loss"] for line in lines_of(Path(folder, "log.jsonl")) if "loss" in line]
        for folder in ("one", "two", "whole")
    )
    assert two == whole and len(two) == 7, "each step once"
    assert one == pytest.approx(two, abs=1e-5)
    assert distance(Path("one"), Path("two")) < 1e-4
