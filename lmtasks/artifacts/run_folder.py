"""The run folder: who may write there, what lies in it, and ``run.json``, which says what it is."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from lmtasks.errors import InputError

RECORD = "run.json"
LOG = "log.jsonl"
CHECKPOINTS = "checkpoints"

OWN = (
    RECORD,
    LOG,
    CHECKPOINTS,
    "README.md",
    "all_results.json",
    "train_results.json",
    "eval_results.json",
    "trainer_state.json",
)
"""What a run writes beside its model and tokenizer."""

LOCK = ".lock"
"""There while a run has the folder; says which process."""


def choose_folder(recipe: str, wanted: str | None) -> Path:
    """The folder of a run: the wanted one, or the first free of ``runs/RECIPE``, ``runs/RECIPE-2``, ..."""
    if wanted:
        return Path(wanted)
    folder = Path("runs") / recipe
    number = 1
    while folder.exists():
        number += 1
        folder = Path("runs") / f"{recipe}-{number}"
    return folder


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
            (folder / LOCK).unlink(missing_ok=True)  # before others can have it
            lock.close()


def require_free(folder: Path) -> None:
    """Refuse a folder that a run has now.

    Raises:
        InputError: one has; names the process.
    """
    try:
        import fcntl

        with (folder / LOCK).open() as file:
            _lock(file, fcntl.LOCK_SH, folder)
    except (ImportError, OSError):
        return


def _locked(folder: Path) -> TextIO | None:
    """The file whose lock this process has; None where there are no locks."""
    try:
        import fcntl
    except ImportError:
        return None
    path = folder / LOCK
    file = path.open("a+")
    try:
        _lock(file, fcntl.LOCK_EX, folder)
    except OSError:
        file.close()
        path.unlink()
        return None
    if not _is_at(file, path):  # of a run that has just ended
        file.close()
        return _locked(folder)
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


def _is_at(file: TextIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _lock(file: TextIO, how: int, folder: Path) -> None:
    import fcntl

    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        number = file.read()
        file.close()
        raise InputError(
            f"output_dir '{folder}' is in use: {f'process {number}' if number else 'another process'} runs there",
            "wait until it is done, or choose another --output_dir",
        ) from None


def require_usable(folder: Path, request: str, *, overwrite: bool, resume: str | bool | None) -> None:
    """Refuse a folder that holds anything but this run.

    Args:
        folder: need not exist.
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
    record = read_record(folder)
    if record is None:
        raise InputError(f"output_dir '{folder}' holds files that are no run of lmtasks", "choose another --output_dir")
    if overwrite:
        return
    if record.get("status") == "done":
        raise InputError(
            f"output_dir '{folder}' holds a finished run", "choose another, or replace it with --overwrite_output_dir"
        )
    if record.get("request") != request:
        raise InputError(
            f"output_dir '{folder}' holds an unfinished run with other options",
            "choose another, or replace it with --overwrite_output_dir",
        )
    if not resume:
        raise InputError(
            f"output_dir '{folder}' holds this run, unfinished",
            "--resume_from_checkpoint true goes on, --overwrite_output_dir starts again",
        )
    checkpoint_to_resume(folder, resume)


def checkpoint_to_resume(folder: Path, wanted: str | bool) -> Path:
    """The wanted checkpoint of a run, or its last; one that was not written to its end does not count.

    Args:
        folder: of the run.
        wanted: path of a checkpoint, or True for the last.

    Raises:
        InputError: there is none.
    """
    whole = {
        int(path.name.removeprefix("checkpoint-")): path
        for path in (folder / CHECKPOINTS).glob("checkpoint-*")
        if re.fullmatch(r"checkpoint-\d+", path.name) and _is_whole(path)
    }
    if wanted is not True:
        named = [path for path in whole.values() if path.resolve() == Path(str(wanted)).resolve()]
        if not named:
            raise InputError(
                f"'{wanted}' is no complete checkpoint of the run in '{folder}'",
                "--resume_from_checkpoint true takes the last one",
            )
        return named[0]
    if not whole:
        raise InputError(
            f"the run in '{folder}' was stopped before its first checkpoint", "--overwrite_output_dir starts again"
        )
    return whole[max(whole)]


def _is_whole(checkpoint: Path) -> bool:
    """The Trainer writes its state last."""
    try:
        json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True


def _require_writable(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise InputError(f"output_dir '{folder}' is a file", "choose a folder")
    parent = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not parent.is_dir():
        raise InputError(f"output_dir '{folder}' lies below the file '{parent}'", "choose a folder")
    if not os.access(parent, os.W_OK):
        raise InputError(f"output_dir '{folder}' cannot be written: no permission in '{parent}'", "choose another")


def require_space(folder: Path, needed: int) -> None:
    """Refuse a disk on which so many bytes would not fit."""
    place = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(place).free
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
    own = {*map(str, record.get("files", ())), *OWN}
    # Of what is there, so that no name in a record, such as "..", can lead out of the folder.
    for path in [path for path in folder.iterdir() if path.name in own]:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def read_record(folder: str | Path) -> dict[str, Any] | None:
    """What ``run.json`` says, or None where there is no run.

    Raises:
        InputError: the file is damaged.
    """
    path = Path(folder) / RECORD
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"'{path}' is damaged: {error}", "choose another folder") from error
    return record if isinstance(record, dict) and "recipe" in record else None


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write, or replace, in one step: a reader never sees half a file."""
    new = path.with_name(f".{path.name}.new")
    new.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(new, path)


def save_into(folder: Path, *parts: Any) -> list[str]:
    """Save model and tokenizer into the folder and tell which files that made.

    They are written next door first and then moved, so that what was there stays until all is written.

    Args:
        parts: objects with ``save_pretrained``.
    """
    staging = folder / ".saving"
    shutil.rmtree(staging, ignore_errors=True)
    for part in parts:
        part.save_pretrained(staging)
    names = sorted(path.name for path in staging.iterdir())
    for name in names:
        os.replace(staging / name, folder / name)
    staging.rmdir()
    return names
