"""Commands in processes of their own, which can be watched, stopped and killed.

A process is forked from one that has imported everything, so that a try takes no seconds of imports. The parent must
not compute: threads of torch do not survive a fork.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

PATIENCE = 180.0
"""Seconds after which a process that nobody has stopped counts as hanging."""

TICK = 0.0005
"""Seconds between two looks at a process or its folder."""

_DIES_WITH_PARENT = 1
"""PR_SET_PDEATHSIG of Linux."""


@dataclass
class Running:
    """The processes of one command, with what they have said so far.

    Args:
        pids: of all of them, rank 0 first; each leads a process group of its own.
        said: file that stdout goes to, and one for stderr.
        codes: exit codes by process, as a shell counts them: 128 and more for signals.
    """

    pids: list[int]
    said: tuple[Path, Path]
    began: float = field(default_factory=time.monotonic)
    codes: dict[int, int] = field(default_factory=dict)

    @property
    def out(self) -> str:
        """What went to stdout."""
        return self.said[0].read_text(encoding="utf-8", errors="replace")

    @property
    def err(self) -> str:
        """What went to stderr."""
        return self.said[1].read_text(encoding="utf-8", errors="replace")

    @property
    def age(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.began

    def ended(self) -> bool:
        """Whether all processes have."""
        for pid in self.pids:
            if pid not in self.codes:
                done, status = os.waitpid(pid, os.WNOHANG)
                if done:
                    code = os.waitstatus_to_exitcode(status)
                    self.codes[pid] = 128 - code if code < 0 else code
        return len(self.codes) == len(self.pids)

    def send(self, number: int, pids: Sequence[int] | None = None) -> None:
        """Send a signal to processes that still run, and to whatever they have started."""
        for pid in self.pids if pids is None else pids:
            if pid not in self.codes:
                try:
                    os.killpg(pid, number)
                except ProcessLookupError:  # not yet a leader, or just gone
                    os.kill(pid, number)

    def wait(self, seconds: float = PATIENCE) -> int | None:
        """The exit code, the first one that is not 0 where there are several; None if it hangs, and is killed."""
        end = time.monotonic() + seconds
        while not self.ended():
            if time.monotonic() > end:
                self.send(signal.SIGKILL)
                while not self.ended():
                    time.sleep(TICK)
                return None
            time.sleep(0.002)
        return next((code for code in self.codes.values() if code), 0)

    def kill(self) -> None:
        """SIGKILL for all, as when the power goes."""
        self.send(signal.SIGKILL)
        self.wait()


def start(
    call: Callable[[], int] | Sequence[str],
    place: Path,
    environment: Mapping[str, str],
    *,
    processes: int = 1,
    fresh: bool = False,
) -> Running:
    """Start a command of lmtasks, or a function that gives an exit code.

    Args:
        call: the words after ``lmtasks``, or the function.
        place: working directory; what is said goes to files beside it.
        environment: variables to set.
        processes: how many are to work together, as a launcher would start them.
        fresh: start Python anew, imports and all.
    """
    said = place.with_name(f"{place.name}.out"), place.with_name(f"{place.name}.err")
    for file in said:
        file.write_bytes(b"")
    port = str(_free_port()) if processes > 1 else ""
    pids = []
    for rank in range(processes):
        world = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        more = {**{name: str(value) for name, value in world.items()}, **address} if processes > 1 else {}
        pids.append(_forked(call, place, {**environment, **more}, said, fresh))
    return Running(pids, said)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _forked(
    call: Callable[[], int] | Sequence[str],
    place: Path,
    environment: Mapping[str, str],
    said: tuple[Path, Path],
    fresh: bool,
) -> int:
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    if pid := os.fork():
        return pid
    code = 1
    try:
        # As a shell starts a command: a SIGINT that is ignored would stay so.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.setpgid(0, 0)
        _die_with(parent)
        for file, number in zip((Path(os.devnull), *said), range(3), strict=True):
            os.dup2(os.open(file, os.O_RDWR | os.O_APPEND), number)
        os.chdir(place)
        os.environ.update(environment)
        if fresh:
            assert not callable(call)
            os.execv(sys.executable, [sys.executable, "-m", "lmtasks", *call])
        sys.stdout, sys.stderr = (os.fdopen(number, "w", encoding="utf-8", closefd=False) for number in (1, 2))
        code = _called(call)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _called(call: Callable[[], int] | Sequence[str]) -> int:
    """The exit code, as Python would give it."""
    from lmtasks.cli import main

    try:
        return call() if callable(call) else main(list(call))
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except KeyboardInterrupt:
        traceback.print_exc()
        return 130


def _die_with(parent: int) -> None:
    """Have this process killed when its parent dies, so that nothing runs on after Ctrl-C."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DIES_WITH_PARENT, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
