"""The kit's checks of a launcher, with the one that is built in; and that one on two machines, here on one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from launched import distance, free_port, losses_of

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
    assert losses_of(Path("two")) == pytest.approx(losses_of(Path("one")), rel=1e-5)
    assert distance(Path("one"), Path("two")) < 1e-4


NETWORKS = {"10.77.0.1": f"lmtasks{os.getpid()}a", "10.77.0.2": f"lmtasks{os.getpid()}b"}
"""Addresses of two machines that have nothing but a cable between them, and the network namespaces that they are."""


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


@pytest.fixture
def cable() -> Iterator[None]:
    """Two networks that see each other and nothing else, not even the loopback interface of the machine they are on."""
    try:
        for network in NETWORKS.values():
            ip("netns", "add", network)
        one, other = NETWORKS.values()
        ip("link", "add", "cable", "netns", one, "type", "veth", "peer", "name", "cable", "netns", other)
    except (OSError, subprocess.CalledProcessError) as error:
        cut()
        pytest.skip(f"networks of one's own need iproute2 and an administrator: {getattr(error, 'stderr', error)}")
    for address, network in NETWORKS.items():
        ip("-n", network, "address", "add", f"{address}/24", "dev", "cable")
        for device in ("cable", "lo"):
            ip("-n", network, "link", "set", device, "up")
    yield
    cut()


def cut() -> None:
    for network in NETWORKS.values():
        subprocess.run(["ip", "netns", "delete", network], capture_output=True)


@pytest.mark.usefixtures("cable")
@pytest.mark.parametrize("recipe", ["masked-lm", "causal-lm"])
def test_two_networks_give_the_figures_of_one_process(
    recipe: str, model_folders: dict[str, Path], text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each machine knows itself by an address that the other can reach, and the way there is the cable only."""
    monkeypatch.chdir(tmp_path)
    asked = {
        "model": model_folders["modernbert" if recipe == "masked-lm" else "llama"], "train_file": text_file,
        "block_size": 16, "max_steps": 6, "train_batch_size": 8, "logging_steps": 1,
    }  # fmt: skip
    words = [recipe, *(word for name, value in asked.items() for word in (f"--{name}", str(value))), "--use_cpu"]
    run = [sys.executable, "-m", "lmtasks", "run", *words, "--output_dir"]
    one = subprocess.run([*run, "one"], capture_output=True)
    assert one.returncode == 0
    port, (host, _) = 29_400, NETWORKS
    launch = ["--num_nodes", "2", "--torchrun.rdzv_endpoint", f"{host}:{port}", "--torchrun.local_addr"]
    machines = [
        subprocess.Popen(
            ["ip", "netns", "exec", network, *run, "two", *launch, address],
            env={**os.environ, "GLOO_SOCKET_IFNAME": "cable"}, stderr=subprocess.PIPE, text=True,
        )
        for address, network in NETWORKS.items()
    ]  # fmt: skip
    told = [machine.communicate(timeout=300)[1] for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], told
    assert losses_of(Path("two")) == pytest.approx(losses_of(Path("one")), rel=1e-5)
    results = [json.loads(Path(folder, "run.json").read_text())["metrics"] for folder in ("one", "two")]
    assert results[1]["eval_loss"] == pytest.approx(results[0]["eval_loss"], rel=1e-6)
