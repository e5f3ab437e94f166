"""The launcher ``torchrun``: torch's elastic API within this process, and processes of this machine.

On several machines each runs the same command, and they find each other at ``--torchrun.rdzv_endpoint``.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import torch
from torch.distributed import TCPStore  # type: ignore[attr-defined]
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.elastic.rendezvous.api import RendezvousError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from lmtasks.api import Job
from lmtasks.config.launched import JOB
from lmtasks.errors import InputError, RunError, Stopped, first_line

LOOK = 0.1
"""Seconds between two looks at whether a process has ended."""

ANSWER = 3
"""Seconds in which the store of a rendezvous answers."""

CROWD = 4
"""Processes for each core of a machine without GPUs, at most: they wait for each other in every step."""

NUMBERS = (signal.SIGINT, signal.SIGTERM)


def check(job: Job, options: Any) -> None:
    """Refuse more processes than have room here, machines that have no place to meet, one that somebody else has.

    Raises:
        InputError: that is so.
    """
    _require_room(job)
    if job.nodes == 1:
        usual = type(options)()
        for name in ("rdzv_endpoint", "rdzv_id", "rdzv_timeout", "local_addr"):
            if getattr(options, name) != getattr(usual, name):
                raise InputError(
                    f"--torchrun.{name} means nothing on one machine", "add --num_nodes 2, or leave it out"
                )
        return
    place = options.rdzv_endpoint
    if place is None:
        raise InputError(
            f"--num_nodes {job.nodes}: torchrun needs a place where the machines find each other",
            "--torchrun.rdzv_endpoint HOST:29400 with one of them as HOST, and the same command on each",
        )
    if options.local_addr is not None:
        _require_name("local_addr", options.local_addr)
    host, separator, port = place.rpartition(":")
    if not (separator and host and port.isdecimal() and 0 < int(port) < 2**16):
        raise InputError(
            f"--torchrun.rdzv_endpoint cannot be '{place}': it must be HOST:PORT",
            "--torchrun.rdzv_endpoint node1:29400",
        )
    _require_name("rdzv_endpoint", host)
    _require_store(host, int(port))


def _require_name(option: str, host: str) -> None:
    """Refuse the name of no machine: torch would go on asking for it."""
    try:
        socket.getaddrinfo(host, None)
    except OSError as error:
        raise InputError(
            f"--torchrun.{option}: '{host}' is the name of no machine: {error.strerror}",
            "give the name or the address of one of the machines",
        ) from error


def _require_room(job: Job) -> None:
    """Refuse more processes than there are GPUs, each of which serves one; without GPUs, many more than cores."""
    on_cpu = str(job.values.get("use_cpu", False)).lower() in ("true", "1")
    gpus, cores = torch.accelerator.device_count(), os.cpu_count() or 1
    most, there = (gpus, f"{gpus} GPU") if gpus and not on_cpu else (CROWD * cores, f"{cores} core")
    if job.processes > most:
        raise InputError(
            f"--num_processes {job.processes} are too many for a machine of {there}{'s' * (there[:2] != '1 ')}",
            f"--num_processes {most} or less",
        )


def _require_store(host: str, port: int) -> None:
    """Refuse a port at which something answers that is no rendezvous; where nothing does, one will be made."""
    try:
        socket.create_connection((host, port), ANSWER).close()
    except OSError:
        return
    answered = threading.Event()

    def ask() -> None:
        with suppress(RuntimeError):
            TCPStore(host, port, is_master=False, timeout=timedelta(seconds=ANSWER)).check(["lmtasks"])
            answered.set()

    # A store waits for an answer without end, whatever its timeout.
    threading.Thread(target=ask, daemon=True).start()
    if not answered.wait(2 * ANSWER):
        raise InputError(
            f"--torchrun.rdzv_endpoint {host}:{port}: something else has this port",
            f"choose another, for all machines: {host}:{port + 1}",
        )


def _hosting(place: str) -> dict[str, bool]:
    """That this machine is the place where all meet, if torch would not see it and each would wait for another.

    Torch looks for the place among the addresses that the machine's own name has. That name may lead nowhere but
    to the machine itself, as Debian sets it up. Whose address it is, binding to it tells.
    """
    host, _, port = place.rpartition(":")
    meant = _addresses(host)
    if meant & _addresses(socket.gethostname()) or any(ipaddress.ip_address(one).is_loopback for one in meant):
        return {}
    try:
        socket.create_server((host, int(port))).close()
    except OSError:
        return {}
    return {"is_host": True}


def _addresses(name: str) -> set[str]:
    """Of a machine; none, where nobody knows the name."""
    try:
        return {str(found[4][0]).partition("%")[0] for found in socket.getaddrinfo(name, None)}
    except OSError:
        return set()


def submit(job: Job, options: Any) -> Attempts:
    """The job, whose processes :meth:`Attempts.wait` starts."""
    return Attempts(job, options)


class Attempts:
    """The handle: as many attempts as it takes, and as ``--torchrun.max_restarts`` allows.

    On one machine each attempt is a launch of its own, so that nothing is left in it of the processes that are gone,
    and none follows an exit code that would come again. On several, torch's agents agree on the next attempt.
    """

    def __init__(self, job: Job, options: Any) -> None:
        self._job, self._options = job, options
        self._cancelled = threading.Event()
        self._carrying_out = False

    def wait(self) -> int:
        """The exit code of the last attempt; the processes write to this one's stdout and stderr."""
        left = self._options.max_restarts if self._job.nodes == 1 else 0
        with _signals(), _variables(self._job):
            self._carrying_out = True
            try:
                while True:
                    code = 128 + signal.SIGTERM if self._cancelled.is_set() else self._attempt()
                    if not left or not self._job.may_go_on(code):
                        return code
                    left -= 1
                    print(f"torchrun: ended with exit code {code}, starting again ({left} left)", file=sys.stderr)
            finally:
                self._carrying_out = False

    def cancel(self) -> None:
        """Stop the processes by a signal to this one, which its main thread waits for."""
        self._cancelled.set()
        if self._carrying_out:
            os.kill(os.getpid(), signal.SIGTERM)

    def logs(self) -> str:
        """Nothing: the processes write to this one's stdout and stderr."""
        return ""

    def _attempt(self) -> int:
        job, options = self._job, self._options
        several = job.nodes > 1
        config = LaunchConfig(
            min_nodes=job.nodes,
            max_nodes=job.nodes,
            nproc_per_node=job.processes,
            run_id=options.rdzv_id if several else job.mark,
            rdzv_backend="c10d",
            rdzv_endpoint=options.rdzv_endpoint if several else "localhost:0",
            rdzv_configs={"join_timeout": options.rdzv_timeout, **(_hosting(options.rdzv_endpoint) if several else {})},
            local_addr=options.local_addr if several else "localhost",
            max_restarts=options.max_restarts if several else 0,
            monitor_interval=LOOK,
        )
        try:
            elastic_launch(config, entrypoint=sys.executable)("-u", "-m", "lmtasks", *job.command)
        except ChildFailedError as error:
            code = error.get_first_failure()[1].exitcode
            return code if code >= 0 else 128 - code
        except SignalException as stop:
            return 128 + int(signal.Signals(stop.sigval))
        except Stopped as stop:
            return 128 + stop.number
        except RendezvousError as error:
            raise RunError(
                f"the {job.nodes} machines did not find each other at {options.rdzv_endpoint} within"
                f" {options.rdzv_timeout} s: {first_line(error)}",
                "give the same command on each machine, and see that they reach that port",
            ) from error
        return 0


@contextmanager
def _signals() -> Iterator[None]:
    """While this is open a signal ends what is waited for; torch has handlers of its own once processes run."""

    def stop(number: int, frame: Any) -> None:
        raise Stopped(number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (*NUMBERS, signal.SIGHUP, signal.SIGQUIT)}
    for number in NUMBERS:
        if before[number] != signal.SIG_IGN:
            signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _variables(job: Job) -> Iterator[None]:
    """While this is open, processes that are started know their job, and divide this machine's cores among them."""
    # It tells of each process that ended, and how; these have said it themselves.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    mine = {JOB: job.mark, "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // job.processes))}
    if job.nodes > 1:
        # Or a later attempt would find the addresses of processes that are gone.
        mine["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    mine = {name: value for name, value in mine.items() if name == JOB or name not in os.environ}
    before = {name: os.environ.get(name) for name in mine}
    os.environ.update(mine)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value
