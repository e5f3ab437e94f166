"""A run in Ray Train, seen from the machine that launched it."""

from __future__ import annotations

import os
import re
import socket
import sys
import threading
from contextlib import suppress
from pathlib import Path

from lmtasks import InputError, RunError
from lmtasks_ray.worker import CODE, STOP, work

PATIENCE = 5
"""Seconds in which a cluster answers."""

SETTINGS = 4
"""The kind of frame with which both sides of HTTP/2 begin."""

LOOK = 0.5
"""Seconds between two looks at what the first worker has written."""


def check(job, options):
    """Refuse a run where there is no cluster, or none that has room for it."""
    try:
        import ray
    except ImportError as error:
        raise InputError(f"Ray cannot be imported: {error}", "pip install 'ray[train]'") from error
    if job.restarts and job.folder is None and "://" not in str(job.values.get("output_dir")):
        raise InputError("--launcher ray needs --output_dir", "a folder on a disk that all nodes share")
    if "://" in options.storage:
        raise InputError(
            f"--ray.storage cannot be '{options.storage}': what the processes write is read there",
            "give a folder on a disk that all nodes share",
        )
    _connect(ray, options.address)
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if job.nodes > len(nodes):
        raise InputError(
            f"--num_nodes {job.nodes}: the cluster has {len(nodes)}", f"--num_nodes {len(nodes)}, or add nodes to it"
        )
    for kind, wanted in (("CPU", options.cpus), ("GPU", options.gpus)):
        there = sum(int(node.get(kind, 0) // wanted) for node in nodes) if wanted else job.size
        if there < job.size:
            raise InputError(
                f"{job.size} processes with {wanted} {kind} each: the cluster has room for {there}",
                f"lower --num_processes, --num_nodes or --ray.{kind.lower()}s",
            )


def _connect(ray, address):
    """Find the cluster."""
    if ray.is_initialized():
        return
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # as Ray wants it, or it warns
    place = address or os.environ.get("RAY_ADDRESS") or "auto"
    try:
        if host := re.fullmatch(r"([^:/]+):(\d+)", place):
            _require_answer(host[1], int(host[2]))
        ray.init(address=place, log_to_driver=False, logging_level="ERROR")
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(
            f"there is no Ray cluster at '{place}'" if place != "auto" else "there is no Ray cluster on this machine",
            "ray start --head starts one, --ray.address HOST:PORT names one, and --ray.address local is this machine",
        ) from error


def _require_answer(host, port):
    """See a server of HTTP/2 answer, as a cluster's is one: Ray itself tries for minutes, and ends the process then."""
    with socket.create_connection((host, port), PATIENCE) as talk:
        talk.settimeout(PATIENCE)
        talk.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, SETTINGS, 0, 0, 0, 0, 0]))
        answer = talk.recv(9)
    if answer[3:4] != bytes([SETTINGS]):
        raise ValueError("something else has this port")


def submit(job, options):
    """The run, which begins when it is waited for."""
    return Fitting(job, options)


class Fitting:
    """The handle: Ray Train's ``fit`` in a thread, and the files into which the workers write."""

    def __init__(self, job, options):
        self._job, self._options = job, options
        self._folder = Path(options.storage).absolute() / job.mark
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"--ray.storage '{options.storage}' cannot be made: {error.strerror}",
                "give a folder on a disk that all nodes share",
            ) from error
        self._shown = 0
        self._code, self._error = None, None
        self._fitting = threading.Thread(target=self._fit, daemon=True)
        self._fitting.start()

    def wait(self):
        """The exit code; what the first worker writes to stderr is shown meanwhile, and its stdout then."""
        while True:
            self._fitting.join(LOOK)
            done = not self._fitting.is_alive()
            text = self._written("stderr")
            print(text[self._shown :], end="", file=sys.stderr, flush=True)
            self._shown = len(text)
            if not done:
                continue
            if self._error:
                raise self._error
            if self._code and "error: " not in text:  # another worker was the first to see what is wrong
                others = (self._written("stderr", rank) for rank in range(1, self._job.size))
                print(next((told for told in others if "error: " in told), ""), end="", file=sys.stderr)
            print(self._written("stdout"), end="", flush=True)
            return self._code

    def cancel(self):
        """Stop the run by a file that all workers look for."""
        (self._folder / STOP).touch()

    def logs(self):
        """What the first worker has written to stderr and stdout."""
        return self._written("stderr") + self._written("stdout")

    def _written(self, stream, rank=0):
        file = self._folder / f"{stream}-{rank}.txt"
        return file.read_text(errors="replace") if file.exists() else ""

    def _codes(self):
        """The exit codes of the workers in their last attempt, as far as they came to one."""
        return [int(file.read_text()) for file in sorted(self._folder.glob(f"{CODE}-*.txt"))]

    def _fit(self):
        from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
        from ray.train.torch import TorchConfig, TorchTrainer

        job, options = self._job, self._options
        # A node more than processes need nothing but themselves; several have to be on as many nodes.
        spread = "STRICT_PACK" if job.nodes == 1 else "STRICT_SPREAD" if job.processes == 1 else "SPREAD"
        scaling = ScalingConfig(
            num_workers=job.size,
            use_gpu=options.gpus > 0,
            resources_per_worker={"CPU": options.cpus, **({"GPU": options.gpus} if options.gpus else {})},
            placement_strategy=spread,
        )
        # No secrets: what is given to Ray here, everybody sees who sees the cluster.
        variables = {name: os.environ[name] for name in job.variables}
        # Ray would say again what is printed, also what is printed into a text.
        variables["RAY_TRAIN_ENABLE_PRINT_PATCH"] = os.environ["RAY_TRAIN_ENABLE_PRINT_PATCH"] = "0"
        trainer = TorchTrainer(
            work,
            train_loop_config={"job": job, "folder": str(self._folder)},
            torch_config=TorchConfig(backend=None if options.gpus else "gloo"),
            scaling_config=scaling,
            run_config=RunConfig(
                name=job.mark,
                storage_path=str(self._folder.parent),
                failure_config=FailureConfig(max_failures=options.max_failures),
                worker_runtime_env={"env_vars": {"OMP_NUM_THREADS": str(options.cpus), **variables}},
            ),
        )
        try:
            with suppress(TrainingFailedError):  # the workers themselves have told what was wrong
                trainer.fit()
                self._code = max(self._codes())
                return
            self._code = next((code for code in self._codes() if code), RunError.exit_code)
        except BaseException as error:
            self._error = error
