"""Progress on stderr: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import logging
import os
import re
import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from importlib import import_module
from types import ModuleType
from typing import Any, TextIO

PAUSE = 5.0
"""Seconds between two lines where there is no terminal; in long stages a twentieth of the whole."""


WIDEST = 80
"""Columns of a line; a wider one is hard to read while it changes."""

LIBRARIES = ("transformers", "datasets")
"""Those that talk, and have progress bars."""

Line = Callable[[int, bool], str]

_speaking = True


def speak(wanted: bool) -> None:
    """Let this process say how far it is, or leave that to another one of the same run; the libraries then, too."""
    global _speaking
    _speaking = wanted
    if not wanted:
        for name in LIBRARIES:
            if library := sys.modules.get(name):
                library.logging.set_verbosity_error()
                library.logging.disable_progress_bar()


def hush() -> None:
    """Silence for what is only installed: bitsandbytes tells of kernels that it would have fetched."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def quiet(*libraries: str) -> None:
    """Silence for the libraries; what matters to a person, lmtasks says itself.

    Args:
        libraries: names of those that will be used, which are imported; all when not given.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    hush()
    modules = _imported(libraries)
    if "WANDB_MODE" in os.environ:  # of which a module says something on stdout when it is imported
        with redirect_stdout(sys.stderr):
            import_module("transformers.integrations.integration_utils")
    for library in modules:
        library.logging.set_verbosity_error()
        library.logging.disable_progress_bar()


@contextmanager
def quietly(*libraries: str) -> Iterator[None]:
    """The same until this is closed: the libraries of a program are as talkative afterwards as they were."""
    logs = [library.logging for library in _imported(libraries)]
    levels = [log.get_verbosity() for log in logs]
    shown = [log.is_progress_bar_enabled() for log in logs]
    quiet(*libraries)
    try:
        yield
    finally:
        for log, level, bar in zip(logs, levels, shown, strict=True):
            log.set_verbosity(level)
            if bar and _speaking:
                log.enable_progress_bar()


def _imported(libraries: Iterable[str]) -> list[ModuleType]:
    return [import_module(name) for name in libraries or LIBRARIES]


def say(text: str) -> None:
    """One line for the person who waits, above a bar where there is one."""
    if _speaking:
        complain("\n".join(fitted([text], sys.stderr)))


def complain(text: str) -> None:
    """The same of what has to be said in any case, as it stands."""
    with _unheard():
        if bars := sys.modules.get("tqdm"):
            bars.tqdm.write(text, file=sys.stderr)  # which takes a bar away meanwhile
        else:
            print(text, file=sys.stderr)
        sys.stderr.flush()


@contextmanager
def _unheard() -> Iterator[None]:
    """While this is open, only stderr is written; once nobody can read it, it is let go, and the work goes on.

    The reader of a pipe may have heard enough, a terminal be closed, a disk with the log be full. None of these is a
    reason to lose a run.
    """
    try:
        yield
    except OSError:
        with suppress(OSError):  # a stream of a program that has no number
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def fitted(lines: Iterable[str], stream: TextIO) -> Iterator[str]:
    """Lines of names and texts in the columns of a terminal, each text below itself; paths stay whole.

    Where there is no terminal, and COLUMNS names none, they stay as they are: a line each is what other programs want.
    """
    if not (stream.isatty() or os.environ.get("COLUMNS")):
        yield from lines
        return
    width = shutil.get_terminal_size().columns
    for line in lines:
        # A text begins where the last gap before the middle ends.
        begins = max((gap.end() for gap in re.finditer(r"(?<=\S)  +|^ +", line[: width // 2])), default=2)
        # The gap itself must not be broken or swallowed.
        head, text = (line[:begins], line[begins:]) if line[:begins].endswith("  ") else ("", line)
        rows = textwrap.wrap(text, max(width - begins, 20), break_long_words=False, break_on_hyphens=False)
        if len(line) <= width or not rows:
            yield line
            continue
        yield head + rows[0]
        yield from (" " * begins + row for row in rows[1:])


class Progress:
    """One stage of known length.

    Args:
        stage: what is being done, "training".
        total: units of work.
        unit: what is counted, "steps".
        line: what a terminal shows in place of a bar: (columns, whether it can show blocks) to a line of them at most.
    """

    def __init__(self, stage: str, total: int, unit: str, line: Line | None = None) -> None:
        self.stage, self.total, self.unit, self.line = stage, total, unit, line
        self.began = time.monotonic()
        self.said = self.began
        # Not at the top: commands that only tell have no use for a bar.
        from tqdm import tqdm

        how: dict[str, Any] = {"desc": stage, "unit": f" {unit}"} if line is None else {"bar_format": "{desc}"}
        self.bar = None
        with _unheard():
            if _speaking and sys.stderr.isatty():
                self.bar = tqdm(total=total, leave=False, dynamic_ncols=True, **how)

    def update(self, done: int, note: str = "") -> None:
        """So many units are done; ``note`` is shown beside."""
        if self.bar is not None:
            if self.line is None:
                self.bar.set_postfix_str(note, refresh=False)
            else:
                # One column is left free, or some terminals begin a new line.
                columns = min(WIDEST, shutil.get_terminal_size().columns) - 1
                self.bar.set_description_str(self.line(columns, not self.bar.ascii), refresh=False)
            with _unheard():
                self.bar.update(done - self.bar.n)
            return
        now = time.monotonic()
        whole = (now - self.began) * self.total / max(done, 1)
        if now - self.said >= max(PAUSE, whole / 20):
            self.said = now
            left = f", {duration(whole - (now - self.began))} left"
            say(f"{self.stage}: {done:,}/{self.total:,} {self.unit}{', ' + note if note else ''}{left}")

    def close(self) -> None:
        """Take the bar off the screen."""
        if self.bar is not None:
            with _unheard():
                self.bar.close()


@contextmanager
def stage(name: str, total: int, unit: str) -> Iterator[Progress]:
    """A :class:`Progress` that is closed however the stage ends."""
    progress = Progress(name, total, unit)
    try:
        yield progress
    finally:
        progress.close()


def duration(seconds: float) -> str:
    """``75`` as ``1 min 15 s``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
