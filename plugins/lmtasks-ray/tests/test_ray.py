"""Runs on a Ray cluster of two nodes of this machine; and what is refused."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from lmtasks_ray import RAY, REPORT, RayOptions
from lmtasks_ray.training import check, submit

from lmtasks import InputError, Job, load_catalog
from lmtasks.cli.app import main
from lmtasks.testing import check_extension, check_launcher


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A cluster of two nodes with one core each, to which this process is connected."""
    import ray
    from ray.cluster_utils import Cluster

    os.environ["RAY_TMPDIR"] = "/tmp/lmtasks-ray"  # a socket's path must be short
    size = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args={**size, "include_dashboard": False})
    cluster.add_node(**size)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    yield cluster
    ray.shutdown()
    cluster.shutdown()
    os.environ.pop("RAY_TMPDIR")


def test_it_keeps_the_contract():
    quick = ["launcher-comes-in", "launcher-import-is-light", "launcher-options-are-documented"]
    assert not check_launcher(RAY, only=quick).failed
    assert not check_extension(REPORT, only=["extension-comes-in", "extension-import-is-light"]).failed


@pytest.mark.cluster
def test_it_keeps_all_of_the_contract(cluster):
    proof = check_launcher(RAY, nodes=2, restarting={"max_failures": 1})
    assert {name for name, outcome in proof.checks.items() if outcome.state == "skipped"} == set()


def test_it_comes_in_by_its_entry_point():
    owner = next(plugin for plugin in load_catalog().plugins if "ray" in plugin.launchers)
    assert owner.distribution == "lmtasks-ray"


BAD = [
    ([], "--launcher ray needs --output_dir", "a folder on a disk that all nodes share"),
    (["--output_dir", "out"], "there is no Ray cluster on this machine", "ray start --head starts one"),
    (
        ["--output_dir", "out", "--ray.address", "127.0.0.1:1"],
        "there is no Ray cluster at '127.0.0.1:1'",
        "ray start --head starts one",
    ),
    (
        ["--output_dir", "out", "--ray.storage", "s3://bucket"],
        "--ray.storage cannot be 's3://bucket': what the processes write is read there",
        "give a folder on a disk that all nodes share",
    ),
    (["--ray.max_failure", "1"], "unknown option '--ray.max_failure', did you mean 'ray.max_failures'?", "--help"),
]


@pytest.mark.parametrize(("words", "error", "hint"), BAD)
def test_a_bad_launch(words, error, hint, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / "none"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert main(["run", "masked-lm", "--launcher", "ray", *words]) == 2
    told, what_to_type = capsys.readouterr().err.splitlines()[-2:]
    assert told.startswith(f"error: {error}")
    assert what_to_type.startswith(f"hint: {hint}")
    assert not Path("out").exists()


def test_a_port_that_somebody_else_has(tmp_path, monkeypatch, capsys):
    """It takes calls and says nothing: Ray itself would try for minutes."""
    monkeypatch.chdir(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        place = f"127.0.0.1:{listener.getsockname()[1]}"
        assert main(["run", "masked-lm", "--launcher", "ray", "--output_dir", "out", "--ray.address", place]) == 2
    told, what_to_type = capsys.readouterr().err.splitlines()[-2:]
    assert told == f"error: there is no Ray cluster at '{place}'"
    assert what_to_type.startswith("hint: ray start --head starts one")


@pytest.mark.cluster
def test_a_storage_that_cannot_be_made(cluster):
    job = Job(command=("run", "masked-lm"), cwd=Path.cwd(), folder=Path("out"))
    with pytest.raises(InputError, match=r"--ray\.storage '/proc/ray' cannot be made"):
        submit(job, RayOptions(storage="/proc/ray"))


@pytest.mark.cluster
@pytest.mark.parametrize(
    ("processes", "nodes", "options", "error"),
    [
        (1, 3, {}, "--num_nodes 3: the cluster has 2"),
        (2, 2, {}, "4 processes with 1 CPU each: the cluster has room for 2"),
        (1, 1, {"cpus": 2}, "1 processes with 2 CPU each: the cluster has room for 0"),
        (1, 1, {"gpus": 1}, "1 processes with 1 GPU each: the cluster has room for 0"),
    ],
)
def test_a_cluster_without_room(cluster, processes, nodes, options, error):
    job = Job(command=("run", "masked-lm"), cwd=Path.cwd(), folder=Path("out"), processes=processes, nodes=nodes)
    with pytest.raises(InputError, match=error):
        check(job, RayOptions(**options))
