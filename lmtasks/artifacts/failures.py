"""Failures of the machine in the middle of the work: no room, no permission, no memory.

Whichever library writes or allocates last says it in its own way: as an :class:`OSError`, as a number in the text
of an error from Rust, or as a complaint of torch about its stream.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lmtasks.config import caches
from lmtasks.errors import InputError, LmtasksError, PluginError, RunError

OUT_OF_MEMORY = "halve --per_device_train_batch_size and double --gradient_accumulation_steps: the same result"

FILES = 40
"""Files that even a short run makes, with one checkpoint."""

ROOM = 1 << 20
"""Bytes with which a disk is not full."""

_FAILURES = {
    errno.ENOSPC: ("the disk is full", "free some space"),
    errno.EDQUOT: ("the disk is full, as the quota of this user goes", "free some space"),
    errno.EFBIG: ("a file would be larger than may be written here", "raise the limit (ulimit -f unlimited)"),
    errno.EROFS: ("a disk can only be read", "make it writable again"),
    errno.EACCES: ("no permission", "give it back"),
    errno.EPERM: ("no permission", "give it back"),
    errno.EIO: ("a disk failed", "look after the disk"),
    errno.ESTALE: ("a network disk went away", "bring it back"),
    errno.EMFILE: ("too many files are open", "raise the limit (ulimit -n)"),
    errno.ENFILE: ("too many files are open on this machine", "close some"),
}
"""What a number of the system comes to, and what to do before the command is given again."""

_NO_PLACE = (errno.ENOENT, errno.ENOTDIR, errno.EEXIST)
"""What the system says of a folder that cannot be made where it is to be."""

_IN_RUST = re.compile(r"\(os error (\d+)\)")

_STREAM_OF_TORCH = re.compile(r"PytorchStreamWriter failed|iostream error|unexpected pos \d+|file write failed")
"""What torch says when it cannot write; it does not say why."""

_NO_MEMORY = re.compile(
    r"can't allocate memory|cannot allocate memory|not enough memory|out of memory|start new thread", re.I
)

_WANTED = re.compile(r"tried to allocate (\d+) bytes")


@contextmanager
def machine_failures(folder: Path | None = None, then: str = "then try again") -> Iterator[None]:
    """While this is open, a failure of the machine is told in one line and in what to do.

    Args:
        folder: where most is written.
        then: what to do when the cause is mended.

    Raises:
        InputError: a name is longer than the system takes.
        RunError: the machine failed; anything else passes through as it is.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, LmtasksError) and not isinstance(error, PluginError):
            raise
        told = next(filter(None, (_told(one, folder, then) for one in _causes(error))), None)
        if told is None:
            raise
        raise told from error


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error, what it was raised from, and what it was raised on the way out of."""
    seen: list[BaseException] = []
    while error not in seen:
        seen.append(error)
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__) or error


def _told(error: BaseException, folder: Path | None, then: str) -> LmtasksError | None:
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or _says(error, _NO_MEMORY):
        wanted = _WANTED.search(str(error))
        how_much = f": there was no room for {int(wanted[1]) / 2**20:,.1f} MiB" if wanted else ""
        return RunError(f"out of memory{how_much}", f"{OUT_OF_MEMORY}; or free some memory, {then}")
    number = _number(error, folder)
    if number == errno.ENAMETOOLONG:  # no failure: whoever chose the name has given the text itself, or too much of it
        name = str(error.filename) if isinstance(error, OSError) else ""
        return InputError(f"'{name[:40]}…' is too long for the name of a file or folder", "choose a shorter one")
    if number == errno.ENOMEM:
        return _told(MemoryError(), folder, then)
    if number in _NO_PLACE and isinstance(error, OSError):
        if not _is_anywhere():
            return InputError("the folder in which this was typed was removed", "cd into one that is there")
        if (cache := _lost_cache(error.filename)) is not None:
            hint = "set HF_HOME to a folder that can be written"
            return InputError(f"the cache '{cache}' cannot be made: {os.strerror(number)}", hint)
    if folder is not None and number in (errno.ENOENT, errno.ENOTDIR) and not folder.is_dir():
        return RunError(f"the folder '{folder}' was removed meanwhile", "start again")
    if number not in _FAILURES:
        return None
    problem, advice = _FAILURES[number]
    named = error.filename if isinstance(error, OSError) else None
    place = Path(os.fsdecode(named)) if isinstance(named, str | bytes) else folder
    if number == errno.ENOSPC and _lacks_files(place):
        problem, advice = "the disk has no room for more files (inodes)", "remove some files"
    where = f"'{place}': " if place else ""
    return RunError(f"{problem}: {where}{os.strerror(number)}", f"{advice}, {then}")


def _is_anywhere() -> bool:
    """Whether the current folder is still there."""
    try:
        os.getcwd()
    except FileNotFoundError:
        return False
    return True


def _lost_cache(path: object) -> str | None:
    """The folder of the libraries' caches, where it is not there and a path that was to be made is about it."""
    home = os.path.abspath(caches.libraries())
    place = os.path.abspath(os.fsdecode(path)) if isinstance(path, str | bytes) else ""
    if not place or os.path.isdir(home):
        return None
    return home if os.path.commonpath([place, home]) in (place, home) else None


def _says(error: BaseException, pattern: re.Pattern[str]) -> bool:
    return isinstance(error, RuntimeError) and pattern.search(str(error)) is not None


def _number(error: BaseException, folder: Path | None) -> int | None:
    """The number by which the system names a failure."""
    if isinstance(error, OSError) and error.errno:
        return error.errno
    if found := _IN_RUST.search(str(error)):
        return int(found[1])
    if not _says(error, _STREAM_OF_TORCH):
        return None
    return _why_not_written(folder)


def _why_not_written(folder: Path | None) -> int:
    """Why a file in the folder cannot be written, found by trying."""
    if folder is None:
        return errno.EIO
    attempt = folder / ".room.new"
    try:
        try:
            with attempt.open("wb") as file:
                file.write(bytes(1 << 20))
                file.flush()
                os.fsync(file.fileno())
        finally:
            with suppress(OSError):
                attempt.unlink()
    except OSError as error:
        return error.errno or errno.EIO
    return errno.ENOSPC


def _lacks_files(place: Path | None) -> bool:
    """Whether a disk has bytes left, and cannot take many files more."""
    with suppress(OSError, AttributeError):  # not every system has it, and not every disk counts
        for path in (place, *place.absolute().parents) if place else ():
            if path.exists():
                about = os.statvfs(path)
                return about.f_files > 0 and about.f_favail < FILES and about.f_bavail * about.f_frsize > ROOM
    return False
