"""Progress on stderr: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

PAUSE = 5.0
"""Seconds between two lines where there is no terminal; in long stages a twentieth of the whole."""


WIDEST = 80
"""Columns of a line; a wider one is hard to read while it changes."""

Line = Callable[[int, bool], str]

_speaking = True


def speak(wanted: bool) -> None:
    """Let this process say how far it is, or leave that to another one of the same run; the libraries then, too."""
    global _speaking
    _speaking = wanted
    if not wanted:
        for name in ("transformers", "datasets"):
            if library := sys.modules.get(name):
                library.logging.set_verbosity_error()
                library.logging.disable_progress_bar()


def say(text: str) -> None:
    """One line for the person who waits, above a bar where there is one."""
    if _speaking:
        tqdm.write(text, file=sys.stderr)
        sys.stderr.flush()


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
        how: dict[str, Any] = {"desc": stage, "unit": f" {unit}"} if line is None else {"bar_format": "{desc}"}
        shown = _speaking and sys.stderr.isatty()
        self.bar = tqdm(total=total, leave=False, dynamic_ncols=True, **how) if shown else None

    def update(self, done: int, note: str = "") -> None:
        """So many units are done; ``note`` is shown beside."""
        if self.bar is not None:
            if self.line is None:
                self.bar.set_postfix_str(note, refresh=False)
            else:
                # One column is left free, or some terminals begin a new line.
                columns = min(WIDEST, shutil.get_terminal_size().columns) - 1
                self.bar.set_description_str(self.line(columns, not self.bar.ascii), refresh=False)
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
