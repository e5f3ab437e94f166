"""What can go wrong, by who can put it right.

    LmtasksError
    ├── InputError    exit 2   the user can: bad flag, file, model, folder; nothing was written
    ├── RunError      exit 3   the run failed: diverged, out of memory, disk full, Hub refused
    ├── PluginError   exit 1   the code of a plugin failed; --traceback shows where
    ├── Interrupted   exit 130 or 143   stopped by a signal; the run can be resumed
    └── EndedElsewhere   as the process of the same run that ended it, and says why

Anything else that escapes is a bug of ours: it keeps its traceback and exits 1.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path


class LmtasksError(Exception):
    """An expected failure: one line that names the thing, one that says what to type.

    Args:
        message: what is wrong, naming the flag, file, row or model.
        hint: what to do about it; empty when there is nothing to type.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class InputError(LmtasksError):
    """The request cannot be carried out as given. Raised before anything is written."""

    exit_code = 2


class RunError(LmtasksError):
    """The request was fine, carrying it out failed."""

    exit_code = 3


class PluginError(LmtasksError):
    """The code of a plugin raised something; the message says which, and at which stage."""

    exit_code = 1


class Interrupted(LmtasksError):  # noqa: N818  (nothing went wrong: somebody asked)
    """A signal stopped the run; the message says what is safe.

    Args:
        signal_number: POSIX number of the signal; the exit code is 128 plus that.
    """

    def __init__(self, message: str, hint: str, signal_number: int) -> None:
        super().__init__(message, hint)
        self.exit_code = 128 + signal_number


class EndedElsewhere(LmtasksError):  # noqa: N818  (it is nothing that went wrong here)
    """Another process of the same run has ended it, and says why itself.

    Args:
        rank: number of that process.
        reason: what it says.
        exit_code: of that process, and so of all.
    """

    def __init__(self, rank: int, reason: str, exit_code: int) -> None:
        super().__init__(f"process {rank} has ended the run: {reason}")
        self.exit_code = exit_code


class Stopped(KeyboardInterrupt):
    """A signal, raised where it arrived: like Ctrl-C, no library takes it for an error of its own.

    Args:
        number: POSIX number of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def first_line(error: BaseException) -> str:
    """The first line of what an error says, or its kind when it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


LONGEST = 1000
"""Characters of a message; some name whole files, and files have any name."""


def in_one_line(text: str) -> str:
    """A message as one line that ends where nobody reads on."""
    line = " ".join(text.splitlines())
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 200]}…{line[-150:]}"


def nearest(name: str, known: Iterable[str]) -> str:
    """``", did you mean 'x'?"`` for the closest of the known names, or an empty string."""
    import difflib  # only a mistake needs it

    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f", did you mean '{matches[0]}'?" if matches else ""


def nearest_path(path: str | os.PathLike[str]) -> str:
    """``", did you mean 'x'?"`` for the file or folder whose path is closest, part by part; or an empty string."""
    import difflib

    if os.path.lexists(path):
        return ""
    found, *parts = Path(path).parts or ("",)
    found, parts = (found, parts) if os.path.isabs(path) else ("", [found, *parts])
    for part in parts:
        if not os.path.lexists(os.path.join(found, part)):
            try:
                there = os.listdir(found or os.curdir)
            except OSError:  # a file, or nobody may look: then there is nothing to suggest
                return ""
            part = next(iter(difflib.get_close_matches(part, there, n=1, cutoff=0.7)), "")
            if not part:
                return ""
        found = os.path.join(found, part)
    return f", did you mean '{found}'?"
