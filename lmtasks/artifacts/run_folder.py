"""The run folder: who may write there, what lies in it, and ``run.json``, which says what it is."""

from __future__ import annotations

import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from lmtasks.artifacts.checkpoints import remove_all
from lmtasks.artifacts.durable import digest, flush, half_written
from lmtasks.errors import InputError

RECORD = "run.json"
LOG = "log.jsonl"
SAVING = ".saving"
"""Where model and tokenizer lie until both are whole."""

ABOUT_THE_RUN = (RECORD, "README.md", "all_results.json", "train_results.json", "eval_results.json")
"""Files that a run leaves for whoever gets its model."""

OWN = (LOG, *ABOUT_THE_RUN, "trainer_state.json")
"""Files that a run writes beside its model, tokenizer and checkpoints."""

LOCK = ".lock"
"""There while a run has the folder; says which process."""


def choose_folder(recipe: str, wanted: str | None, mine: Callable[[Path], bool] = lambda folder: False) -> Path:
    """The folder of a run: the wanted one, or the first free of ``runs/RECIPE``, ``runs/RECIPE-2``, ...

    Args:
        mine: whether a folder that exists will do, too.
    """
    if wanted:
        return Path(wanted)
    names = itertools.chain([recipe], (f"{recipe}-{number}" for number in itertools.count(2)))
    return next(folder for folder in map(Path("runs").joinpath, names) if not folder.exists() or mine(folder))


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
    with suppress(ImportError, OSError), (folder / LOCK).open() as file:
        _lock(file, folder, shared=True)


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
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            return file
    file.close()  # of a run that has just ended, and removed it
    return _locked(folder)


def _lock(file: TextIO, folder: Path, *, shared: bool = False) -> None:
    import fcntl  # which not every system has

    try:
        fcntl.flock(file, fcntl.LOCK_NB | (fcntl.LOCK_SH if shared else fcntl.LOCK_EX))
    except BlockingIOError:
        file.seek(0)
        number = file.read()
        file.close()
        raise InputError(
            f"output_dir '{folder}' is in use: {f'process {number}' if number else 'another process'} runs there",
            "wait until it is done, or choose another --output_dir",
        ) from None


def is_bare(folder: Path) -> bool:
    """Whether a folder is not there, or holds no more than a run leaves that was killed before its first word."""
    return not folder.exists() or (folder.is_dir() and all(_is_leftover(path) for path in folder.iterdir()))


def sweep(folder: Path) -> None:
    """Remove what a killed run has left half-written; for who has the folder :func:`reserved`."""
    for path in [path for path in folder.iterdir() if path.name != LOCK and _is_leftover(path)]:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _is_leftover(path: Path) -> bool:
    return not path.is_symlink() and path.name in (LOCK, SAVING, *(half_written(Path(name)).name for name in OWN))


def require_writable(folder: Path) -> None:
    """Refuse a folder that cannot be one, or cannot be written; it need not exist.

    Raises:
        InputError: a file is in the way, or there is no permission.
    """
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
    free = shutil.disk_usage(_existing(folder)).free
    if free < needed:
        raise InputError(
            f"the disk of output_dir '{folder}' has {free / 2**20:,.0f} MiB free, a run takes {needed / 2**20:,.0f}",
            "free some space, or choose another --output_dir",
        )


def clear(folder: Path) -> None:
    """Remove an earlier run: its checkpoints, the files that it recorded as its own, and nothing else."""
    record = read_record(folder)
    if record is None:
        return
    remove_all(folder)
    own = {*map(str, record.get("files", ())), *OWN}
    # Of what is there, so that no name in a record, such as "..", can lead out of the folder. What says that it is a
    # run goes last: one that is removed by half can be removed again.
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
    except ValueError as error:
        raise InputError(f"'{path}' is damaged: {error}", "choose another folder") from error
    return record if isinstance(record, dict) and "recipe" in record else None


def digests(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """The SHA-256 of files of a run, as its record keeps them."""
    return {name: digest(folder / name) for name in names if (folder / name).is_file()}


def spoiled(folder: Path, record: Mapping[str, Any]) -> str | None:
    """Which file of a finished run is not as the run left it, in words; None where all are."""
    recorded = record.get("sha256")
    for name, wanted in recorded.items() if isinstance(recorded, dict) else ():
        if Path(name).name != name:  # a record from elsewhere has no say about other folders
            continue
        if not (folder / name).is_file():
            return f"'{folder / name}' is missing"
        if digest(folder / name) != wanted:
            return f"'{folder / name}' is not as the run left it"
    return None


def require_intact(folder: str | Path) -> None:
    """Refuse a finished run whose files were damaged since; any other folder, and what is none, passes.

    Raises:
        InputError: a file is missing, or is not as the run left it.
    """
    record = read_record(folder)
    if record and record.get("status") == "done" and (wrong := spoiled(Path(folder), record)):
        raise InputError(
            wrong,
            "bring it back, or the run's command with --resume_from_checkpoint auto saves it again; if you changed it"
            f" yourself, take its line out of 'sha256' in {Path(folder) / RECORD}",
        )


def save_into(folder: Path, *parts: Any) -> list[str]:
    """Save model and tokenizer into the folder and tell which files that made.

    They are written next door first and then moved, so that what was there stays until all is written.

    Args:
        parts: objects with ``save_pretrained``.
    """
    staging = folder / SAVING
    shutil.rmtree(staging, ignore_errors=True)
    try:
        for part in parts:
            part.save_pretrained(staging)
        names = sorted(path.name for path in staging.iterdir())
        for name in names:
            if (staging / name).is_file():
                flush(staging / name)
            os.replace(staging / name, folder / name)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    flush(folder)
    return names
