"""What users get wrong about launching: one error and one hint, told once, before anything is started or written."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from lmtasks.config.launched import JOB


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def taken_port() -> Iterator[int]:
    """A port that somebody has who is no rendezvous: it takes calls and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield int(listener.getsockname()[1])


MEET = ["--num_nodes", "2", "--torchrun.rdzv_endpoint"]

BAD = [
    (["--launcher", "torchrum"], "unknown launcher 'torchrum', did you mean 'torchrun'?", "there are torchrun"),
    (["--launcher", "ray"], "unknown launcher 'ray'", "pip install 'lmtasks-ray'"),
    (["--launcher", "slurn"], "unknown launcher 'slurn', did you mean 'slurm'?", "pip install 'lmtasks-slurm'"),
    (["--launcher", "hf_jobs"], "unknown launcher 'hf-jobs'", "pip install 'lmtasks-hf-jobs'"),
    (["--ray.max_failures", "3"], "unknown launcher 'ray'", "pip install 'lmtasks-ray'"),
    (["--launcher", ""], "unknown launcher ''", "there are torchrun"),
    (["--launcher", "deepspeed"], "unknown launcher 'deepspeed'", "there are torchrun"),
    (["--launcher"], "argument --launcher: expected one argument", "lmtasks run masked-lm --help"),
    (["--num_nodes", "none"], "--num_nodes cannot be 'none': it must be a whole number at least 1", "--num_nodes 2"),
    (
        ["--num_nodes", "2"],
        "--num_nodes 2: torchrun needs a place where the machines find each other",
        "--torchrun.rdzv_endpoint HOST:29400 with one of them as HOST",
    ),
    (
        ["--torchrun.rdzv_endpoint", "a:1"],
        "--torchrun.rdzv_endpoint means nothing on one machine",
        "add --num_nodes 2, or leave it out",
    ),
    (["--torchrun.local_addr", "a.invalid"], "--torchrun.local_addr means nothing on one machine", "add --num_nodes 2"),
    (["--torchrun.rdzv_id", "mine"], "--torchrun.rdzv_id means nothing on one machine", "add --num_nodes 2"),
    (["--torchrun.rdzv_timeout", "9"], "--torchrun.rdzv_timeout means nothing on one machine", "add --num_nodes 2"),
    (
        [*MEET, "localhost:1", "--torchrun.local_addr", "a.invalid"],
        "--torchrun.local_addr: 'a.invalid' is the name of no machine",
        "give the name",
    ),
    ([*MEET, "localhost:99999"], "--torchrun.rdzv_endpoint cannot be 'localhost:99999': it must be HOST:PORT", "node1"),
    (["--nproc_per_node", "2"], "unknown option '--nproc_per_node'", "here it is --num_processes"),
    (["--gpus=2"], "unknown option '--gpus'", "here it is --num_processes"),
    (["--nnodes", "2"], "unknown option '--nnodes'", "here it is --num_nodes"),
    (
        ["--master-port", "1"],
        "unknown option '--master_port'",
        "here it is --torchrun.rdzv_endpoint HOST:PORT, the same",
    ),
    (["--max_restarts", "2"], "unknown option '--max_restarts'", "here it is --torchrun.max_restarts"),
    (["--partition", "gpu"], "unknown option '--partition'", "here it is --slurm.partition, with lmtasks-slurm"),
    (["--node_rank", "1"], "--node_rank does not exist here: machines number themselves", "leave --node_rank out"),
    ([*MEET, "node1"], "--torchrun.rdzv_endpoint cannot be 'node1': it must be HOST:PORT", "rdzv_endpoint node1:29400"),
    ([*MEET, "a.invalid:29400"], "--torchrun.rdzv_endpoint: 'a.invalid' is the name of no machine", "give the name"),
    (
        ["--torchrun.max_restart", "3"],
        "unknown option '--torchrun.max_restart', did you mean 'torchrun.max_restarts'?",
        "--help shows every option",
    ),
    (
        ["--torchrun.max_restarts", "-1"],
        "--torchrun.max_restarts cannot be '-1': it must be a whole number at least 0",
        "--torchrun.max_restarts: times that a run which failed is started again",
    ),
    (["--num_processes", "2", "--max_step", "3"], "unknown option '--max_step', did you mean 'max_steps'?", "--help"),
    (
        ["--num_processes", "2", "--learning_rate", "fast"],
        "--learning_rate cannot be 'fast': it must be a number at least 0",
        "--learning_rate: peak learning rate",
    ),
]


@pytest.mark.parametrize(("words", "error", "hint"), BAD)
def test_a_bad_launch(words: list[str], error: str, hint: str, lmtasks: Callable[..., Any]) -> None:
    done = lmtasks("run", "masked-lm", *words)
    assert done.code == 2
    assert done.err.count("error: ") == done.err.count("hint: ") == 1
    *_, told, what_to_type = done.err.splitlines()
    assert told.startswith(f"error: {error}")
    assert what_to_type.startswith("hint: ")
    assert hint in what_to_type
    assert not list(Path().iterdir())


def test_more_processes_than_a_machine_has_room_for(
    lmtasks: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 0)
    done = lmtasks("run", "masked-lm", "--num_processes", 9999)
    told = "error: --num_processes 9999 are too many for a machine of 3 cores\nhint: --num_processes 12 or less\n"
    assert (done.code, done.err) == (2, told)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 1)
    done = lmtasks("run", "masked-lm", "--num_processes", 2)
    told = "error: --num_processes 2 are too many for a machine of 1 GPU\nhint: --num_processes 1 or less\n"
    assert (done.code, done.err) == (2, told)
    done = lmtasks("evaluate", ".", "--recipe", "masked-lm", "--num_processes", 13)
    assert done.code == 2
    for flag in (["--use_cpu"], ["--use_cpu", "true"]):
        done = lmtasks("run", "masked-lm", "--num_processes", 13, *flag)
        assert "error: --num_processes 13 are too many for a machine of 3 cores" in done.err


@pytest.mark.parametrize("number", ["two", "0", "-1", "1.5", "99999"])
def test_a_number_that_is_none(number: str, lmtasks: Callable[..., Any]) -> None:
    done = lmtasks("run", "masked-lm", "--num_processes", number)
    told = f"error: --num_processes cannot be '{number}': it must be a whole number at least 1\n"
    assert (done.code, done.err) == (2, f"{told}hint: --num_processes 2\n")


def test_a_port_that_somebody_else_has(taken_port: int, lmtasks: Callable[..., Any]) -> None:
    done = lmtasks("run", "masked-lm", *MEET, f"127.0.0.1:{taken_port}")
    assert done.code == 2
    told = f"--torchrun.rdzv_endpoint 127.0.0.1:{taken_port}: something else has this port"
    assert done.err.splitlines()[-2:] == [
        f"error: {told}",
        f"hint: choose another, for all machines: 127.0.0.1:{taken_port + 1}",
    ]


def test_machines_that_do_not_come(lmtasks: Callable[..., Any]) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{listener.getsockname()[1]}"
    done = lmtasks("run", "masked-lm", *MEET, place, "--torchrun.rdzv_timeout", 1)
    assert done.code == 3
    told, hint = done.err.splitlines()[-2:]
    assert told.startswith(f"error: the 2 machines did not find each other at {place} within 1 s")
    assert hint == "hint: give the same command on each machine, and see that they reach that port"
    assert not Path("runs").exists()


@pytest.mark.parametrize("command", ["run", "evaluate"])
@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("TORCHELASTIC_RUN_ID", ["--num_processes", "2"]),
        ("WORLD_SIZE", ["--launcher", "torchrun"]),
        (JOB, ["--num_nodes", "2"]),
    ],
)
def test_a_process_of_a_launcher_starts_no_others(
    command: str,
    name: str,
    flags: list[str],
    lmtasks: Callable[..., Any],
    model_folders: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(name, "2")
    done = lmtasks(command, "masked-lm" if command == "run" else model_folders["roberta"], *flags)
    assert done.code == 2
    assert f"error: {flags[0]} starts processes, and this is one of several already\nhint: leave it out" in done.err


def test_a_config_does_not_say_how_it_is_started(lmtasks: Callable[..., Any]) -> None:
    Path("run.yaml").write_text("num_processes: 2\n")
    done = lmtasks("run", "masked-lm", "--config", "run.yaml")
    assert done.code == 2
    assert "--num_processes does not exist here: lmtasks run, evaluate and prepare take it, typed" in done.err


def launched(*words: str, said: str = "") -> subprocess.CompletedProcess[str]:
    """A command in two processes."""
    command = [sys.executable, "-m", "lmtasks", *words, "--num_processes", "2"]
    return subprocess.run(command, capture_output=True, text=True, input=said)


@pytest.mark.parametrize(
    ("words", "error", "hint"),
    [
        (
            ["--train_file", "-"],
            "--train_file -: standard input is that of the process in which this was typed",
            "save",
        ),
        (
            ["--output_dir", "s3://a/b"],
            "output_dir 's3://a/b' is a URL, and what is written here is a folder",
            "give a",
        ),
    ],
)
def test_what_only_one_process_could_read_or_none_could_write(words: list[str], error: str, hint: str) -> None:
    done = launched("run", "masked-lm", *words, said="some text\n" * 99)
    assert done.returncode == 2
    assert done.stderr.count("error: ") == done.stderr.count("hint: ") == 1
    *_, told, what_to_type = done.stderr.splitlines()
    assert told.startswith(f"error: {error}")
    assert what_to_type.startswith(f"hint: {hint}")
    assert not list(Path().iterdir())


DYING = """
import os
import signal
from dataclasses import replace

from lmtasks.builtin.masked_lm import MASKED_LM


def preprocess(tokenizer, options):
    if os.environ.get("RANK") == "1":
        os.kill(os.getpid(), signal.SIGKILL)
    return MASKED_LM.preprocess(tokenizer, options)


DYING = replace(MASKED_LM, name="dying", preprocess=preprocess)
"""


def test_a_process_that_dies_before_the_first_step_ends_the_others_and_leaves_nothing() -> None:
    Path("dying.py").write_text(DYING)
    done = launched("run", "./dying.py", "--output_dir", "out")
    assert done.returncode in (3, 137), done.stderr
    assert done.stderr.count("error: ") <= 1 and "Traceback" not in done.stderr
    assert [path.name for path in Path().iterdir() if path.name != "__pycache__"] == ["dying.py"]


def test_a_preparation_is_for_one_process(lmtasks: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    for words in (["--num_processes", "2"], MEET[:2]):
        done = lmtasks("prepare", "masked-lm", "--output_dir", "there", *words)
        told = "error: prepare is for one process, which takes all cores of its machine, not for 2\n"
        hint = "hint: leave --num_processes and --num_nodes out; --launcher alone carries it out elsewhere\n"
        assert (done.code, done.err) == (2, told + hint)
    monkeypatch.setenv("WORLD_SIZE", "2")
    done = lmtasks("prepare", "masked-lm", "--output_dir", "there")
    told = "prepare is for one process, which takes all cores of its machine, and this is one of 2"
    assert (done.code, f"error: {told}\nhint: start it once\n" in done.err) == (2, True)
    assert not list(Path().iterdir())
