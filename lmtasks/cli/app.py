"""The entry point: which command is meant, and how its errors are told.

Light at the top: a command that only tells imports nothing heavy. Results go to stdout, progress and warnings to
stderr; ``--json`` prints one JSON document. Each command is a module of this room with a function ``command``.
"""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from importlib import import_module

from lmtasks.artifacts.failures import machine_failures
from lmtasks.cli import tab
from lmtasks.cli.argv import asks_help, taken_switch, taken_values, underscored
from lmtasks.cli.usage import tell_usage
from lmtasks.config.commands import COMMANDS
from lmtasks.config.world import ALONE, World
from lmtasks.errors import EndedElsewhere, LmtasksError, Stopped, in_one_line
from lmtasks.progress import complain
from lmtasks.registry.enabled_plugins import file_of, selected

ANOTHER = 10.0
"""Seconds that the first process of a machine has to tell of an error, before another tells of its own."""


_traced: ContextVar[bool] = ContextVar("lmtasks_traceback", default=False)
"""Whether errors are told with their traceback, in the command that is being carried out."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        the exit code: 0 done, 1 a plugin failed, 2 bad input, 3 the run failed, 130 or 143 interrupted.
        Anything unexpected keeps its traceback, and Python exits 1.
    """
    if tab.asked():
        tab.complete()
    _make_writable()
    words = underscored(sys.argv[1:] if arguments is None else arguments)
    return told(lambda: selecting(words))


def told(work: Callable[[], int]) -> int:
    """The exit code of a command, whose errors are told."""
    try:
        with machine_failures(), _terminable():
            try:
                return work()
            finally:
                _flush()
    except LmtasksError as error:
        if isinstance(error, EndedElsewhere):
            return error.exit_code
        _let_another_tell()
        if _traced.get():
            traceback.print_exception(error)
        complain(f"error: {in_one_line(error.message)}")
        if error.hint:
            complain(f"hint: {in_one_line(error.hint)}")
        return error.exit_code
    except KeyboardInterrupt as stop:
        if _speaks():
            complain("error: interrupted")
        return 128 + (stop.number if isinstance(stop, Stopped) else signal.SIGINT)
    except BrokenPipeError:
        # Whoever read our output has heard enough (lmtasks list | head -1).
        return 0


def _make_writable() -> None:
    """Make streams that take whatever is told.

    No closed one (``>&-``), and no letter that an encoding lacks, ends a command; such a letter is told by its number,
    as on stderr anyway.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  (for all that follows)
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors in ("strict", "surrogateescape"):
        sys.stdout.reconfigure(errors="backslashreplace")


def _speaks() -> bool:
    """Whether this process is the first of its machine, or what happens to it need not have happened to that."""
    return os.environ.get("LOCAL_RANK", "0") == "0" or World.current(talking=True) != ALONE


def _let_another_tell() -> None:
    """Give the first process of this machine the time to tell what is wrong, and its launcher that to end this one.

    For what is wrong before any two can talk, and so with all: a flag, a file. Where nobody ends it, this one tells.
    """
    if _speaks():
        return
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    time.sleep(ANOTHER)


def _flush() -> None:
    """Write what stdout still holds. What it cannot take is let go, or Python tries again at its end and exits 120."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM end a command as Ctrl-C does, with everything put away."""
    process = os.getpid()

    def stop(number: int, frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if os.getpid() != process:  # a fork, such as a worker that its pool sends home
            signal.raise_signal(number)
        raise Stopped(number)

    mine = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    if mine:
        signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        if mine:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def selecting(words: list[str]) -> int:
    """Carry out a command with the plugins that it wants, wherever it says so."""
    builtins_only, words = taken_switch(words, "no_plugins")
    traced, words = taken_switch(words, "traceback")
    _traced.set(traced)
    named, words = taken_values(words, "plugin")
    sources = [file[0] if (file := file_of(name)) else name for name in named]
    with selected(sources, builtins_only=builtins_only):
        return _dispatch(words)


def _dispatch(words: list[str]) -> int:
    if not words or words[0] == "help" or (words[0].startswith("-") and asks_help(words[:1])):
        tell_usage()
        return 0
    name, *rest = words
    if name in ("--version", "-V"):
        from lmtasks import __version__

        print(f"lmtasks {__version__}")
        return 0
    if name not in COMMANDS:
        from lmtasks.cli.extension_command import command

        return command(name, rest)
    done: int = import_module(f"lmtasks.cli.{name.replace('-', '_')}").command(rest)
    return done
