"""The lock of a run folder: one run at a time, and none while what lies there is sent away."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from lmtasks.errors import InputError

LOCK = ".lock"
"""There while a run has the folder; says which process."""

ORPHANS = 15.0
"""Seconds that the workers of a run that was killed may hold its lock; they look every five whether it still lives."""


@contextmanager
def reserved(folder: Path) -> Iterator[None]:
    """Have a folder for one run alone, from before anything is written there until all is.

    Where there are no locks, on Windows and some network file systems, nobody is kept out.

    Raises:
        InputError: another run has it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = _locked(folder)
    try:
        yield
    finally:
        if lock is not None:
            with suppress(OSError):  # the folder may be read-only by now
                (folder / LOCK).unlink(missing_ok=True)  # before others can have it
            lock.close()


def require_free(folder: Path) -> None:
    """Refuse a folder that a run has now.

    Raises:
        InputError: one has; names the process.
    """
    with suppress(ImportError, OSError), (folder / LOCK).open() as file:
        _lock(file, folder, shared=True)


def is_held(folder: Path) -> bool | None:
    """Whether a run has a folder now; None where there are no locks to tell by."""
    try:
        import fcntl

        with (folder / LOCK).open() as file:
            fcntl.flock(file, fcntl.LOCK_NB | fcntl.LOCK_SH)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    except (ImportError, OSError):
        return None
    return False


@contextmanager
def kept(folder: Path) -> Iterator[None]:
    """Keep runs out of a folder while what lies there is sent away; several may do so at the same time.

    A run may send its own. Where there are no locks, or nothing can be written, nobody is kept out.

    Raises:
        InputError: a run has the folder.
    """
    path, lock = folder / LOCK, None
    new = not path.exists()
    with suppress(ImportError, OSError):
        if not path.exists() or path.read_text() != str(os.getpid()):
            lock = path.open("a+")
            _lock(lock, folder, shared=True)
    try:
        yield
    finally:
        if lock is not None:
            with suppress(ImportError, OSError, InputError):  # others may still have it
                _lock(lock, folder)
                if new:
                    path.unlink(missing_ok=True)
            lock.close()


def _locked(folder: Path) -> TextIO | None:
    """The file whose lock this process has; None where there are no locks."""
    path = folder / LOCK
    file = path.open("a+")
    try:
        _lock(file, folder)
    except (ImportError, OSError):
        file.close()
        with suppress(OSError):  # another run may be at the same
            path.unlink()
        return None
    with suppress(FileNotFoundError):
        if os.path.samestat(os.fstat(file.fileno()), path.stat()):
            sign(file)
            return file
    file.close()  # of a run that has just ended, and removed it
    return _locked(folder)


def sign(file: TextIO) -> None:
    """Write the number of this process into a lock that it has."""
    with suppress(OSError):  # the number only helps people, and the disk may be full
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()


def signature(file: TextIO) -> str:
    """The number of the process that has a lock; empty where it has written none."""
    file.seek(0)
    return file.read()


def holder(number: str) -> str:
    """Who has a lock, in words."""
    return f"process {number}" if number else "another process"


def _lock(file: TextIO, folder: Path, *, shared: bool = False) -> None:
    import fcntl  # which not every system has

    until = time.monotonic() + ORPHANS
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_NB | (fcntl.LOCK_SH if shared else fcntl.LOCK_EX))
            return
        except BlockingIOError:
            number = signature(file)
        if _runs(number) or time.monotonic() > until:
            break
        time.sleep(0.1)
    file.close()
    raise InputError(
        f"output_dir '{folder}' is in use: {holder(number)} runs there",
        "wait until it is done, or choose another --output_dir",
    )


def _runs(number: str) -> bool:
    """Whether there is a process of that number, as far as this machine knows; without a number there may be."""
    with suppress(ValueError, PermissionError):
        try:
            os.kill(int(number), 0)
        except ProcessLookupError:
            return False
    return True
