"""The end of a run before its time: one for all of its processes, with one exit code, told once.

A process that has gone leaves the others waiting for it deep in torch, where Python hears no signal. So each says so
before it goes, in the store by which they found each other, and a thread in each of the others looks there.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

from lmtasks.config.world import World
from lmtasks.errors import EndedElsewhere, LmtasksError, RunError, Stopped, first_line
from lmtasks.training.signals import NUMBERS, keeping

EVERY = 0.3
"""Seconds between two looks at whether another process has ended."""

GRACE = 1.5
"""Seconds to come to the same end; then again as many to let go after a signal, and then the process is ended."""

_LOST = re.compile(
    r"connection (closed|reset|refused)|connect\w* .*(closed|reset)|broken pipe|timed out|gloo|nccl", re.I
)
"""What torch says where another process has gone without a word."""


@dataclass(frozen=True)
class End:
    """The end of a run before its time.

    Args:
        rank: of the process that came to it first.
        code: exit code of all.
    """

    rank: int
    code: int
    reason: str
    hint: str = ""

    @classmethod
    def of(cls, error: BaseException, rank: int = 0) -> End:
        """The end that an error is."""
        if isinstance(error, LmtasksError):
            return cls(rank, error.exit_code, error.message, error.hint)
        if isinstance(error, KeyboardInterrupt):
            number = error.number if isinstance(error, Stopped) else int(signal.SIGINT)
            return cls(rank, 128 + number, f"stopped by {signal.Signals(number).name}")
        return cls(rank, 1, f"{type(error).__name__}: {first_line(error)}")


class Ending:
    """What all processes of a run know of its end.

    Args:
        store: see :func:`_store`; None where a process is alone.
        last_words: called before a process is ended that does not end by itself.
    """

    def __init__(self, world: World, store: Any = None) -> None:
        self.world, self.store = world, store
        self.last_words: Callable[[End], None] = lambda end: None
        self._left = threading.Event()
        self._known: End | None = None

    def of(self, error: BaseException) -> End:
        """The end that the run has come to, now that this process has met an error: the first that any has told of."""
        own = End.of(error, self.world.rank)
        if self.store is None:
            return own
        with suppress(RuntimeError):  # whoever has the store has gone
            return self._heard(self.store.compare_set("end", "", json.dumps(asdict(own))))
        return self._known or own

    def watch(self, bell: int | None) -> None:
        """Look until any process has come to an end, and then end this one, as gently as it goes; in a thread.

        Args:
            bell: a file that has the signals of this process; see :func:`_bell`.
        """
        while not self._left.wait(EVERY):
            end = self._told()
            if end is None or end.rank == self.world.rank:
                number = _rung(bell)
                # In training a signal is kept until the step is done, which may take its time.
                if number is None or keeping() or self._left.wait(GRACE):
                    continue
                end = self.of(Stopped(number))  # it has not come out of torch by itself
            self._let_go(end)
            return

    def _let_go(self, end: End) -> None:
        if self._left.wait(GRACE):
            return
        if callable(signal.getsignal(signal.SIGTERM)):  # ours, or the user's own
            os.kill(os.getpid(), signal.SIGTERM)
            if self._left.wait(GRACE):
                return
        with suppress(OSError):
            self.last_words(end)
        self.linger()
        sys.stderr.flush()
        os._exit(end.code)

    def leave(self) -> None:
        """Look no longer."""
        self._left.set()

    def linger(self) -> None:
        """Stay until the others have heard: with the first process its store may go, in which they would look."""
        others = [f"heard/{rank}" for rank in range(1, self.world.size)]
        until = time.monotonic() + 2 * GRACE
        with suppress(RuntimeError):
            while self.world.is_main and not self.store.check(others) and time.monotonic() < until:
                time.sleep(0.1)

    def _told(self) -> End | None:
        try:
            return self._heard(self.store.get("end")) if self.store.check(["end"]) else None
        except RuntimeError:
            return self._known or End(0, 3, "process 0 has gone")

    def _heard(self, said: str | bytes) -> End:
        self._known = End(**json.loads(said))
        self.store.set(f"heard/{self.world.rank}", "1")
        return self._known


@contextmanager
def together(world: World) -> Iterator[Ending]:
    """While this is open, the end of one process is that of all.

    Raises:
        EndedElsewhere: another process came to the end first, and says why.
        RunError: another one has gone without a word.
    """
    ending = Ending(world, _store(world) if world.size > 1 else None)
    if ending.store is None:
        yield ending
        return
    try:
        with _bell() as bell:
            threading.Thread(target=ending.watch, args=(bell,), name="lmtasks-ending", daemon=True).start()
            yield ending
            world.barrier()  # with the first process its store may go, and the others would take that for an end
    except BaseException as error:
        lost = isinstance(error, RuntimeError) and _LOST.search(str(error))
        if lost:
            time.sleep(2 * EVERY)  # whoever has gone may have told why a moment ago
            told = RunError(
                f"another process of the run has gone: {first_line(error)}",
                "look at what it said; the same command with --resume_from_checkpoint auto goes on",
            )
        end = ending.of(told if lost else error)
        ending.leave()
        ending.linger()
        if end.rank != world.rank:
            time.sleep(EVERY)  # a launcher ends the others when the first is gone, and that one has something to say
            raise EndedElsewhere(end.rank, end.reason, end.code) from error
        if lost:
            raise told from error
        raise
    finally:
        ending.leave()


@contextmanager
def _bell() -> Iterator[int | None]:
    """A file to which signals are written as they arrive, also while Python does not run; only the main thread has one.

    Processes of a data loader write nothing to it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield None
        return
    reading, writing = os.pipe()
    for end in (reading, writing):
        os.set_blocking(end, False)
    before, process = signal.set_wakeup_fd(writing, warn_on_full_buffer=False), os.getpid()
    os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1) if os.getppid() == process else None)
    try:
        yield reading
    finally:
        signal.set_wakeup_fd(before)
        os.close(writing)
        os.close(reading)


def _rung(bell: int | None) -> int | None:
    """The last of the signals that stop a run which came since this was last asked."""
    with suppress(OSError):  # nothing there, or closed
        heard = [number for number in os.read(bell, 64) if number in NUMBERS] if bell is not None else []
        return heard[-1] if heard else None
    return None


def _store(world: World) -> Any:
    """A store of this run that all of its processes reach; None where they did not find each other by an address.

    A connection of its own: torch's waits for others, and nobody could look meanwhile. What a launcher keeps of an
    earlier run, or of an earlier attempt at this one, has another name.
    """
    from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

    name = world.broadcast(secrets.token_hex(8))
    place = os.environ.get("MASTER_ADDR"), os.environ.get("MASTER_PORT")
    if not all(place):
        return None
    store = TCPStore(str(place[0]), int(str(place[1])), is_master=False, timeout=timedelta(seconds=60))
    return PrefixStore(f"lmtasks/{name}", store)
