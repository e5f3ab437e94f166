"""A launcher that starts a killed run again brings it to its end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from launched import distance, free_port, lines_of

from lmtasks.runs.runner import run

KILLED = """
import os
import signal
from dataclasses import replace
from pathlib import Path

from lmtasks.builtin.masked_lm import MASKED_LM


def before_step(model, options, steps):
    if steps == 3 and os.environ.get("RANK") == "1" and not Path("killed").exists():
        Path("killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)


KILLED = replace(MASKED_LM, name="killed", before_step=before_step, starter=None)
"""


def test_a_launcher_that_starts_a_killed_run_again_brings_it_to_its_end(
    model_folders: dict[str, Path], text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("killed.py").write_text(KILLED)
    asked = {
        "model": str(model_folders["modernbert"]), "train_file": str(text_file), "block_size": 16, "use_cpu": True,
        "max_train_samples": 26, "max_eval_samples": 7, "max_steps": 5, "train_batch_size": 8, "save_steps": 2,
        "logging_steps": 1,
    }  # fmt: skip
    words = [word for name, value in asked.items() for word in (f"--{name}", str(value))]
    run("masked-lm", **asked, output_dir="one")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", f"--master_port={free_port()}"]
    command = ["-m", "lmtasks", "run", "./killed.py", *words, "--output_dir", "two", "--resume_from_checkpoint", "auto"]
    done = subprocess.run([*launcher, "--max_restarts", "1", *command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert Path("killed").exists()
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) <= 1, "who was left says it once: that the other has gone, or that the launcher has stopped it"
    assert "note       goes on after step 2 of 5, from checkpoint-2" in done.stderr
    assert not Path("two/exit.json").exists(), "what an earlier attempt has said of its end is taken back"
    losses = [
        [line["loss"] for line in lines_of(Path(folder, "log.jsonl")) if "loss" in line] for folder in ("one", "two")
    ]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    assert distance(Path("one"), Path("two")) < 1e-4
