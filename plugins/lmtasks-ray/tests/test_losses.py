"""Runs that lose workers and a node end without help, with the weights of a run that lost nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SIZE = {"num_cpus": 1, "object_store_memory": 80 * 2**20}

PATIENCE = 300
"""Seconds for a start of workers, on a machine that is busy with other things."""

SLOW = '''
"""A recipe with steps of a quarter of a second, whose processes say who they are."""

import os
import time
from dataclasses import replace
from pathlib import Path

from lmtasks.builtin.causal_lm import CAUSAL_LM


def before_step(model, options, steps):
    Path(f"process-{os.environ['RANK']}").write_text(str(os.getpid()))
    time.sleep(0.25)


SLOW = replace(CAUSAL_LM, name="slow-lm", before_step=before_step, starter=None)
'''

SHAPE = "n_layer=1,n_embd=16,n_head=2,n_positions=32"
RUN = ["run", "./slow.py", "--train_file", "text.txt", "--model_type", "gpt2", "--config_overrides", SHAPE]
HOW = ["--train_tokenizer", "300", "--block_size", "16", "--max_steps", "40", "--save_steps", "4", "--use_cpu"]
LOG = ["--train_batch_size", "4", "--logging_steps", "1", "--num_nodes", "2", "--output_dir"]


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """A cluster whose head has no core, and two nodes with one each; its text and recipe are where the test is."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_TMPDIR", "/tmp/lmtasks-ray")  # a socket's path must be short
    monkeypatch.chdir(tmp_path)
    lines = [f"the {colour} {beast} saw {count} hats" for colour in COLOURS for beast in BEASTS for count in range(20)]
    Path("text.txt").write_text("\n".join(lines))
    Path("slow.py").write_text(SLOW)
    cluster = Cluster(initialize_head=True, head_node_args={**SIZE, "num_cpus": 0, "include_dashboard": False})
    cluster.workers = [cluster.add_node(**SIZE), cluster.add_node(**SIZE)]
    yield cluster
    cluster.shutdown()


COLOURS, BEASTS = ("red", "green", "blue", "black"), ("cat", "dog", "owl", "fox", "hen")


def begun(cluster, max_failures):
    """A run on the cluster."""
    ray = ["--launcher", "ray", "--ray.address", cluster.address, "--ray.max_failures", str(max_failures)]
    words = [sys.executable, "-m", "lmtasks", *RUN, *HOW, *LOG, "lost", *ray]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def reached(run, step):
    """Wait until the log has a step."""
    log, until = Path("lost/log.jsonl"), time.monotonic() + PATIENCE
    while not log.exists() or f'"step": {step},' not in log.read_text():
        assert run.poll() is None, run.stdout.read()
        assert time.monotonic() < until
        time.sleep(0.1)


def kept(run):
    """The run ends by itself, and its weights and losses are those of two processes that nobody touched."""
    told, _ = run.communicate(timeout=2 * PATIENCE)
    assert run.returncode == 0, told
    words = [sys.executable, "-m", "lmtasks", *RUN, *HOW, *LOG[:-3], "--num_processes", "2", "--output_dir", "whole"]
    subprocess.run(words, check=True, capture_output=True)
    assert Path("lost/model.safetensors").read_bytes() == Path("whole/model.safetensors").read_bytes()
    losses = [
        [line["loss"] for line in map(json.loads, Path(folder, "log.jsonl").read_text().splitlines()) if "loss" in line]
        for folder in ("lost", "whole")
    ]
    assert len(losses[0]) == 40
    assert losses[0] == losses[1]
    return told


@pytest.mark.cluster
def test_two_killed_workers_in_one_run(cluster):
    run = begun(cluster, 2)
    for step in (10, 24):
        reached(run, step)
        os.kill(int(Path("process-1").read_text()), signal.SIGKILL)
    told = kept(run)
    assert "goes on after step 8 of 40" in told
    assert told.count("goes on after step ") == 2


@pytest.mark.cluster
def test_a_node_that_is_lost_and_another_in_its_place(cluster):
    run = begun(cluster, 1)
    reached(run, 10)
    cluster.remove_node(cluster.workers[1], allow_graceful=False)
    cluster.add_node(**SIZE)
    assert kept(run).count("goes on after step ") == 1
