"""``--num_processes``: a run in several processes that its command starts itself."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from launched import lines_of

from lmtasks import InputError
from lmtasks.runs.processes import LAUNCHED, in_processes


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def command(*words: Any) -> list[str]:
    return [sys.executable, "-m", "lmtasks", "run", "causal-lm", *map(str, words)]


def test_the_same_command_is_the_same_run_in_one_process_and_in_two(
    model_folders: dict[str, Path], text_file: Path
) -> None:
    flags = ["--train_batch_size", 8, "--max_steps", 4, "--logging_steps", 1, "--block_size", 16, "--seed", 3]
    for number in (1, 2):
        words = ["--model", model_folders["llama"], "--train_file", text_file, *flags, "--num_processes", number]
        done = subprocess.run(command(*words, "--output_dir", number, "--json"), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["output_dir"] == str(number), "one document, whatever the processes"
        assert done.stderr.count("model      ") == 1, "the plan is said once"
    one, two = ([line["loss"] for line in lines_of(Path(folder) / "log.jsonl") if "loss" in line] for folder in "12")
    assert len(one) == 4
    assert two == pytest.approx(one, rel=1e-5)
    losses = [json.loads(Path(folder, "eval_results.json").read_text())["eval_loss"] for folder in "12"]
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)


def test_bad_input_is_told_once(tmp_path: Path) -> None:
    done = subprocess.run(command("--train_file", "none.txt", "--num_processes", 2), capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-2].startswith("error: --train_file: no such file: none.txt")
    assert (done.stderr.count("error:"), done.stderr.count("Traceback")) == (1, 0)
    assert not Path("runs").exists()


def test_a_signal_to_the_command_stops_all_with_a_checkpoint(model_folders: dict[str, Path], text_file: Path) -> None:
    words = ["--model", model_folders["llama"], "--train_file", text_file, "--block_size", 16, "--max_steps", 5000]
    running = subprocess.Popen(
        command(*words, "--logging_steps", 1, "--output_dir", "out", "--num_processes", 2),
        stderr=subprocess.PIPE,
        text=True,
    )
    until = time.monotonic() + 120
    while not Path("out/log.jsonl").exists() and time.monotonic() < until:
        time.sleep(0.2)
    running.send_signal(signal.SIGTERM)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 143, err
    assert "Traceback" not in err
    assert len(list(Path("out/checkpoints").glob("checkpoint-*"))) == 1
    assert json.loads(Path("out/exit.json").read_text())["exit_code"] == 143


@pytest.mark.parametrize("number", ["two", "0", "-1", "1.5", "99999"])
def test_a_number_that_is_none(number: str, lmtasks: Callable[..., Any]) -> None:
    done = lmtasks("run", "masked-lm", "--num_processes", number)
    told = f"error: --num_processes cannot be '{number}': it must be a whole number at least 1\n"
    assert (done.code, done.err) == (2, f"{told}hint: --num_processes 2\n")


@pytest.mark.parametrize(("name", "value"), [(LAUNCHED, "1"), ("WORLD_SIZE", "2")])
def test_a_process_of_a_launcher_starts_no_others(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match="this is one of several already"):
        in_processes(2, ["run", "masked-lm"])
    assert "OMP_NUM_THREADS" in os.environ, "which it leaves as it is"
