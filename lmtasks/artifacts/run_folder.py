"""The run folder: who may write there, what lies in it, and ``run.json``, which says what it is."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from lmtasks.artifacts.failures import FILES
from lmtasks.errors import InputError

RECORD = "run.json"
LOG = "log.jsonl"
CHECKPOINTS = "checkpoints"
"""A folder of their own: so OUT is a clean model, and nobody's ``checkpoint-best`` is taken for one of ours."""

ABOUT_THE_RUN = (RECORD, "README.md", "all_results.json", "train_results.json", "eval_results.json")
"""Files that a run leaves for whoever gets its model."""

OWN = (LOG, CHECKPOINTS, *ABOUT_THE_RUN, "trainer_state.json")
"""Files and folders that a run writes beside its model and tokenizer."""

LOCK = ".lock"
"""There while a run has the folder; says which process."""

ORPHANS = 15.0
"""Seconds that the workers of a run that was killed may hold its lock; they look every five whether it still lives."""


def choose_folder(recipe: str, wanted: str | None) -> Path:
    """The folder of a run: the wanted one, or the first free of ``runs/RECIPE``, ``runs/RECIPE-2``, ...

    Raises:
        InputError: the wanted one cannot be a folder.
    """
    if wanted and "\0" in wanted:
        raise InputError(f"output_dir {wanted!r} holds a NUL, which no path can", "choose another --output_dir")
    if wanted:
        return Path(wanted)
    names = itertools.chain([recipe], (f"{recipe}-{number}" for number in itertools.count(2)))
    return next(folder for folder in map(Path("runs").joinpath, names) if not folder.exists())


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
            with suppress(OSError):  # the number only helps people, and the disk may be full
                file.truncate(0)
                file.write(str(os.getpid()))
                file.flush()
            return file
    file.close()  # of a run that has just ended, and removed it
    return _locked(folder)


def _lock(file: TextIO, folder: Path, *, shared: bool = False) -> None:
    import fcntl  # which not every system has

    until = time.monotonic() + ORPHANS
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_NB | (fcntl.LOCK_SH if shared else fcntl.LOCK_EX))
            return
        except BlockingIOError:
            file.seek(0)
            number = file.read()
        if _runs(number) or time.monotonic() > until:
            break
        time.sleep(0.1)
    file.close()
    raise InputError(
        f"output_dir '{folder}' is in use: {f'process {number}' if number else 'another process'} runs there",
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


def require_usable(folder: Path, request: str, *, overwrite: bool, resume: str | bool | None) -> None:
    """Refuse a folder that holds anything but this run; it need not exist.

    Args:
        request: fingerprint of what was asked for, as ``run.json`` keeps it.
        overwrite: an earlier run there may be replaced.
        resume: the same run, unfinished, may be there; see :func:`checkpoint_to_resume`.

    Raises:
        InputError: a file, a folder of other things, another run, a finished one, or nothing to resume.
    """
    if overwrite and resume:
        raise InputError("--overwrite_output_dir and --resume_from_checkpoint exclude each other", "give one of them")
    _require_writable(folder)
    if not folder.exists() or all(path.name == LOCK for path in folder.iterdir()):
        if resume:
            raise InputError(f"nothing to resume in '{folder}'", "leave out --resume_from_checkpoint")
        return
    record, advice = read_record(folder), "choose another, or replace it with --overwrite_output_dir"
    if record is None:
        raise InputError(f"output_dir '{folder}' holds files that are no run of lmtasks", "choose another --output_dir")
    if overwrite:
        return
    if record.get("status") == "done":
        raise InputError(f"output_dir '{folder}' holds a finished run", advice)
    if record.get("request") != request:
        raise InputError(f"output_dir '{folder}' holds an unfinished run with other options", advice)
    if not resume:
        raise InputError(
            f"output_dir '{folder}' holds this run, unfinished",
            "--resume_from_checkpoint true goes on, --overwrite_output_dir starts again",
        )
    checkpoint_to_resume(folder, resume)


def checkpoint_to_resume(folder: Path, wanted: str | bool) -> Path:
    """The wanted checkpoint of a run, or its last; one that was not written to its end does not count.

    Args:
        wanted: path of a checkpoint, or True for the last.

    Raises:
        InputError: there is none.
    """
    paths = [path for path in (folder / CHECKPOINTS).glob("checkpoint-*") if _is_whole(path)]
    if wanted is True:
        if paths:
            return max(paths, key=lambda path: int(path.name.removeprefix("checkpoint-")))
        raise InputError(
            f"the run in '{folder}' was stopped before its first checkpoint", "--overwrite_output_dir starts again"
        )
    for path in paths:
        if path.resolve() == Path(str(wanted)).resolve():
            return path
    raise InputError(
        f"'{wanted}' is no complete checkpoint of the run in '{folder}'",
        "--resume_from_checkpoint true takes the last one",
    )


def _is_whole(checkpoint: Path) -> bool:
    """Whether the Trainer made it, and to the end: it writes its state last."""
    with suppress(OSError, ValueError):
        json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
        return re.fullmatch(r"checkpoint-\d+", checkpoint.name) is not None
    return False


def _require_writable(folder: Path) -> None:
    place = _existing(folder)
    if not place.is_dir():
        what = "is a file" if place == folder else f"lies below the file '{place}'"
        raise InputError(f"output_dir '{folder}' {what}", "choose a folder")
    if not os.access(place, os.W_OK):
        raise InputError(f"output_dir '{folder}' cannot be written: no permission in '{place}'", "choose another")


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.absolute().parents) if path.exists())


def require_space(folder: Path, needed: int) -> None:
    """Refuse a disk on which so many bytes would not fit."""
    place = _existing(folder)
    free = shutil.disk_usage(place).free
    with suppress(AttributeError, OSError):  # not every system has it, not every disk counts
        about = os.statvfs(place)
        if about.f_files and about.f_favail < FILES:
            raise InputError(
                f"the disk of output_dir '{folder}' takes {about.f_favail} more files (inodes), a run makes {FILES}",
                "remove some files, or choose another --output_dir",
            )
    if free < needed:
        raise InputError(
            f"the disk of output_dir '{folder}' has {free / 2**20:,.0f} MiB free, a run takes {needed / 2**20:,.0f}",
            "free some space, or choose another --output_dir",
        )


def clear(folder: Path) -> None:
    """Remove an earlier run: the files that it recorded as its own, and nothing else."""
    record = read_record(folder)
    if record is None:
        return
    files = record.get("files")
    own = {*map(str, files if isinstance(files, list) else ()), *OWN}
    # Nobody may take for finished what has begun to go, and a record is there until all else is gone.
    write_json(folder / RECORD, {**record, "status": "running"})
    # Of what is there, so that no name in a record, such as "..", can lead out of the folder.
    for path in sorted((path for path in folder.iterdir() if path.name in own), key=lambda path: path.name == RECORD):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def read_record(folder: str | Path) -> dict[str, Any] | None:
    """The content of ``run.json``, or None where there is no run.

    Raises:
        InputError: the file is damaged.
    """
    path = Path(folder) / RECORD
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"'{path}' is damaged: {error}", "choose another folder") from error
    return record if isinstance(record, dict) and "recipe" in record else None


@contextmanager
def read_whole(folder: str | Path) -> Iterator[None]:
    """While this is open, a folder is read that holds one finished run, or none.

    Raises:
        InputError: the run is not done, or another has begun there meanwhile, so that what was read may be of two;
            whatever else was raised because of that is its cause.
    """
    record, before = read_record(folder), record_bytes(folder)
    if record is not None and record.get("status") != "done":
        raise not_finished(folder)
    try:
        yield
    except Exception as error:
        if record is not None and record_bytes(folder) != before:
            raise not_finished(folder) from error
        raise
    if record is not None and record_bytes(folder) != before:
        raise not_finished(folder)


def record_bytes(folder: str | Path) -> bytes:
    """``run.json`` as it stands; another run, and another state of one, has another. Empty where there is none."""
    with suppress(OSError):
        return (Path(folder) / RECORD).read_bytes()
    return b""


def not_finished(folder: str | Path) -> InputError:
    """The refusal of a run that is to be used and is not done."""
    return InputError(f"the run in '{folder}' is not finished", "finish it with --resume_from_checkpoint true")


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write, or replace, in one step: a reader never sees half a file, and on a full disk the old one stays."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """The same for text as UTF-8 with plain line ends. A link is replaced, not what it points to."""
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    try:
        new.write_text(text, encoding="utf-8", newline="\n")
        os.replace(new, path)
    except BaseException:
        with suppress(OSError):
            new.unlink(missing_ok=True)
        raise


def save_into(folder: Path, *parts: Any) -> list[str]:
    """Save model and tokenizer into the folder and tell which files that made.

    They are written next door first and then moved, so that what was there stays until all is written.

    Args:
        parts: objects with ``save_pretrained``.
    """
    staging = folder / ".saving"
    if staging.is_symlink():  # what it leads to is somebody's
        staging.unlink()
    shutil.rmtree(staging, ignore_errors=True)
    try:
        for part in parts:
            part.save_pretrained(staging)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)  # it may be what a disk is full of
        raise
    names = sorted(path.name for path in staging.iterdir())
    for name in names:
        os.replace(staging / name, folder / name)
    staging.rmdir()
    return names
