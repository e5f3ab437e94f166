"""``--num_processes``: a command in several processes that it starts itself, by torchrun's launcher."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from launched import lines_of


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


def test_evaluation_in_two_processes_has_the_figures_of_one(model_folders: dict[str, Path], text_file: Path) -> None:
    words = ["evaluate", model_folders["llama"], "--validation_file", text_file, "--block_size", 16, "--json"]
    figures = []
    for more in ([], ["--num_processes", 2]):
        done = subprocess.run(
            [sys.executable, "-m", "lmtasks", *map(str, [*words, *more])], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        figures.append(json.loads(done.stdout))
    assert figures[1] == pytest.approx(figures[0], rel=1e-6)


def test_a_preparation_is_launched_and_is_the_same(text_file: Path, lmtasks: Callable[..., Any]) -> None:
    """What it wrote, to the byte; and a place that holds it is gone on with, and told by the same command."""
    words = ["prepare", "causal-lm", "--train_file", text_file, "--block_size", 16, "--shard_size", 0.001]
    for folder, more in (("here", []), ("there", ["--launcher", "torchrun", "--torchrun.max_restarts", 1])):
        command = [sys.executable, "-m", "lmtasks", *map(str, [*words, "--output_dir", folder, *more])]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "  train    " in done.stdout and f"to {folder}\n" in done.stdout
    here, there = ({path.name: path.read_bytes() for path in Path(name).iterdir()} for name in ("here", "there"))
    assert here == there and len(here) > 3


def test_what_is_typed_for_the_launcher_is_no_part_of_the_run(
    model_folders: dict[str, Path], text_file: Path, lmtasks: Callable[..., Any]
) -> None:
    asked = ["run", "causal-lm", "--model", model_folders["llama"], "--train_file", text_file, "--block_size", 16]
    asked += ["--train_batch_size", 8, "--max_steps", 2, "--output_dir", "out", "--use_cpu"]
    launch = ["--launcher", "torchrun", "--torchrun.max_restarts", 1, "--num_processes", 2]
    done = subprocess.run(
        [sys.executable, "-m", "lmtasks", *map(str, [*asked, *launch])], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    record = json.loads(Path("out/run.json").read_text())
    assert len(record["job"]) == 16, "the job by which another attempt would have known its run"
    again = lmtasks(*asked, "--resume_from_checkpoint", "auto")
    assert (again.code, "finished" in again.err) == (0, True), "the same command in one process is the same run"
