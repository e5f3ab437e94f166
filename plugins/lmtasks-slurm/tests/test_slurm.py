"""Runs by submitit, in its local executor: the same run, stopped, killed, queued again; and what is refused."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest
from lmtasks_slurm import SLURM, SlurmOptions
from lmtasks_slurm.submission import parameters

from lmtasks import Job, load_catalog
from lmtasks.cli.app import main
from lmtasks.testing import check_launcher

LOCAL = {"cluster": "local"}


def test_it_keeps_the_contract():
    quick = ["launcher-comes-in", "launcher-import-is-light", "launcher-options-are-documented"]
    proof = check_launcher(SLURM, options=LOCAL, only=[*quick, "launched-bad-input-is-refused"])
    assert {name for name, outcome in proof.checks.items() if outcome.state == "skipped"} == set()


@pytest.mark.cluster
def test_it_keeps_all_of_the_contract():
    proof = check_launcher(SLURM, options=LOCAL, restarting={"max_restarts": 1})
    assert {name for name, outcome in proof.checks.items() if outcome.state == "skipped"} == set()


def test_it_comes_in_by_its_entry_point():
    owner = next(plugin for plugin in load_catalog().plugins if "slurm" in plugin.launchers)
    assert owner.distribution == "lmtasks-slurm"


def test_what_a_job_asks_of_slurm():
    job = Job(command=("run", "masked-lm"), cwd=Path.cwd(), processes=8, nodes=2)
    asked = parameters(job, SlurmOptions(partition="gpu", gpus=8, minutes=60, sbatch=["account=lab"], memory="64GB"))
    assert asked == {
        "name": "lmtasks",
        "nodes": 2,
        "tasks_per_node": 8,
        "cpus_per_task": 1,
        "gpus_per_node": 8,
        "timeout_min": 60,
        "slurm_mem": "64GB",
        "slurm_signal_delay_s": 120,
        "slurm_partition": "gpu",
        "slurm_additional_parameters": {"account": "lab"},
    }


LOCALLY = ["--slurm.cluster", "local"]

BAD = [
    ([], "there is no Slurm on this machine: sbatch is not found", "give the command on a login node"),
    ([*LOCALLY, "--num_nodes", "2"], "--num_nodes 2: --slurm.cluster local is one machine", "leave"),
    ([*LOCALLY, "--slurm.sbatch", "qos"], "--slurm.sbatch cannot be 'qos': it must be NAME=VALUE", ""),
    ([*LOCALLY, "--slurm.minutes", "1"], "--slurm.warning 120: the job has 60 seconds in all", "give"),
    ([*LOCALLY, "--slurm.logs", "/proc/logs"], "--slurm.logs '/proc/logs' cannot be made", "give a folder that all"),
    (["--slurm.cluster", "remote"], "--slurm.cluster cannot be 'remote': it must be one of slurm, local", ""),
    (["--slurm.partitions", "gpu"], "unknown option '--slurm.partitions', did you mean 'slurm.partition'?", "--help"),
]


@pytest.mark.parametrize(("words", "error", "hint"), BAD)
def test_a_bad_launch(words, error, hint, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["run", "masked-lm", "--launcher", "slurm", *words]) == 2
    told, what_to_type = capsys.readouterr().err.splitlines()
    assert told.startswith(f"error: {error}")
    assert what_to_type.startswith(f"hint: {hint}")
    assert not list(tmp_path.iterdir())


@pytest.mark.cluster
def test_a_run_whose_time_is_up_is_queued_again_and_goes_on(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text(
        "\n".join(f"line {number} of a text about nothing in particular" for number in range(300))
    )
    words = ["run", "masked-lm", "--train_file", "text.txt", "--max_steps", "60", "--logging_steps", "1"]
    words += [
        "--block_size",
        "16",
        "--train_batch_size",
        "8",
        "--save_steps",
        "1000",
        "--use_cpu",
        "--output_dir",
        "out",
    ]

    def warn():
        log = Path("out/log.jsonl")
        while not (log.exists() and len(log.read_text().splitlines()) > 5):
            time.sleep(0.1)
        for line in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                own = b"submitit.core._submit" in line.read_bytes() and str(tmp_path).encode() in line.read_bytes()
                if own:
                    os.kill(int(line.parent.name), signal.SIGUSR2)
            except OSError:
                continue

    threading.Thread(target=warn, daemon=True).start()
    assert main([*words, "--num_processes", "2", "--launcher", "slurm", "--slurm.cluster", "local"]) == 0
    told = capfd.readouterr().err
    assert "note       goes on after step" in told
    assert json.loads(Path("out/run.json").read_text())["status"] == "done"
    steps = [line["step"] for line in map(json.loads, Path("out/log.jsonl").read_text().splitlines()) if "loss" in line]
    assert steps == list(range(1, 61)), "each step once"
