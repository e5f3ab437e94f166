"""The run folder: who may write there, what lies in it, and ``run.json``, which says what it is."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lmtasks.artifacts.checkpoints import remove_all, tidy
from lmtasks.artifacts.durable import digest, flush, half_written, write_json
from lmtasks.artifacts.failures import FILES
from lmtasks.artifacts.lock import LOCK
from lmtasks.errors import InputError

RECORD = "run.json"
LOG = "log.jsonl"
READING, REPORT = "report.json", "report.html"
"""How the model read its held-out text, and the page about the run: both show that text, so neither is published."""
CURVE = "learning_curve.svg"
END = "exit.json"
"""There where a run has ended before its time: exit code and reason, for whoever has started it from afar."""
SAVING = ".saving"
"""Where model and tokenizer lie until both are whole."""

ABOUT_THE_RUN = (RECORD, "README.md", CURVE, "all_results.json", "train_results.json", "eval_results.json")
"""Files that a run leaves for whoever gets its model."""

OWN = (LOG, END, *ABOUT_THE_RUN, "trainer_state.json", READING, REPORT)
"""Files that a run writes beside its model, tokenizer and checkpoints."""


def choose_folder(recipe: str, wanted: str | None, mine: Callable[[Path], bool] = lambda folder: False) -> Path:
    """The folder of a run: the wanted one, or the first free of ``runs/RECIPE``, ``runs/RECIPE-2``, ...

    Args:
        mine: whether a folder that exists will do, too.

    Raises:
        InputError: the wanted one cannot be a folder.
    """
    if wanted:
        return new_folder(wanted)
    names = itertools.chain([recipe], (f"{recipe}-{number}" for number in itertools.count(2)))
    return next(folder for folder in map(Path("runs").joinpath, names) if not folder.exists() or mine(folder))


def new_folder(name: str) -> Path:
    """The folder that somebody has named to be written, with a user's own in place of a tilde before it.

    Raises:
        InputError: no folder can be called that, or be made there.
    """
    if "\0" in name:
        raise InputError(f"output_dir {name!r} holds a NUL, which no path can", "choose another --output_dir")
    if re.match(r"[a-z][a-z0-9+.-]*://", name):
        raise InputError(
            f"output_dir '{name}' is a URL, and what is written here is a folder",
            "give a path, on a disk that all machines share if there are several; --push_to_hub copies the model",
        )
    # What no shell has taken for a folder of its own: --output_dir=~/run, or a line of YAML.
    folder = Path(name if os.path.lexists(name) else os.path.expanduser(name))
    lost = next((path for path in (folder, *folder.parents) if os.path.islink(path) and not os.path.exists(path)), None)
    if lost is not None:
        raise InputError(
            f"output_dir '{folder}' cannot be made: '{lost}' is a link that leads nowhere",
            "choose another, or remove the link",
        )
    return folder


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
    tidy(folder)


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
    try:
        tempfile.TemporaryFile(dir=place).close()
    except FileNotFoundError as error:  # it is there: it is one like /proc, where the system alone makes files
        raise InputError(
            f"output_dir '{folder}' cannot be made: '{place}' takes no files", "choose another --output_dir"
        ) from error


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
    """Remove an earlier run: its checkpoints, the files that it recorded as its own, and nothing else."""
    record = read_record(folder)
    if record is None:
        return
    files = record.get("files")
    own = {*(str(name).partition("/")[0] for name in (files if isinstance(files, list) else ())), *OWN}
    # Nobody may take for finished what has begun to go, and a record is there until all else is gone.
    write_json(folder / RECORD, {**record, "status": "running"})
    remove_all(folder)
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


def sealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record with a digest of itself among those of the files."""
    content: dict[str, Any] = json.loads(json.dumps(record))
    return {**content, "sha256": {**content["sha256"], RECORD: _own_digest(content)}}


def unsealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record without that digest, for a copy that says less."""
    return {**record, "sha256": {name: own for name, own in record.get("sha256", {}).items() if name != RECORD}}


def _own_digest(record: Mapping[str, Any]) -> str:
    words = json.dumps(unsealed(record), sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(words.encode("utf-8", errors="surrogatepass")).hexdigest()


def digests(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """The SHA-256 of files of a run, as its record keeps them."""
    return {name: digest(folder / name) for name in names if (folder / name).is_file()}


def spoiled(folder: Path, record: Mapping[str, Any], names: Container[str] | None = None) -> str | None:
    """Which file of a finished run, of those named or of all, is not as the run left it, in words; None: none."""
    recorded = record.get("sha256")
    for name, wanted in recorded.items() if isinstance(recorded, dict) else ():
        if names is not None and name not in names:
            continue
        if Path(name).is_absolute() or ".." in Path(name).parts:  # a record has no say about other folders
            continue
        if not (folder / name).is_file():
            return f"'{folder / name}' is missing"
        if (_own_digest(record) if name == RECORD else digest(folder / name)) != wanted:
            return f"'{folder / name}' is not as the run left it"
    return None


def require_intact(folder: str | Path, names: Container[str] | None = None) -> None:
    """Refuse a finished run whose files, or those named, were damaged since; any other folder, and no run, passes.

    Raises:
        InputError: a file is missing, or is not as the run left it.
    """
    record = read_record(folder)
    if record and record.get("status") == "done" and (wrong := spoiled(Path(folder), record, names)):
        raise InputError(
            wrong,
            "bring it back, or the run's command with --resume_from_checkpoint auto saves it again; if you changed it"
            f" yourself, take its line out of 'sha256' in {Path(folder) / RECORD}",
        )


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
    require_intact(folder, {RECORD})  # it decides what is read, and as what
    try:
        yield
    except Exception as error:
        if record is not None and record_bytes(folder) != before:
            raise not_finished(folder) from error
        raise
    if record is not None and record_bytes(folder) != before:
        raise not_finished(folder)


def write_end(folder: Path, code: int, reason: str, hint: str = "") -> None:
    """Say in the folder of a run with which exit code it ends, and why; not where there is no run."""
    if (folder / RECORD).is_file():
        write_json(folder / END, {"exit_code": code, "reason": reason, "hint": hint})


def forget_end(folder: Path) -> None:
    """Take back what an earlier attempt has said of its end."""
    (folder / END).unlink(missing_ok=True)


def record_bytes(folder: str | Path) -> bytes:
    """``run.json`` as it stands; another run, and another state of one, has another. Empty where there is none."""
    with suppress(OSError):
        return (Path(folder) / RECORD).read_bytes()
    return b""


def not_finished(folder: str | Path) -> InputError:
    """The refusal of a run that is to be used and is not done."""
    return InputError(f"the run in '{folder}' is not finished", "finish it with --resume_from_checkpoint true")


def save_into(folder: Path, *parts: Any) -> list[str]:
    """Save model and tokenizer into the folder and tell which files that made.

    They are written next door first and then moved, so that what was there stays until all is written.

    Args:
        parts: objects with ``save_pretrained``.
    """
    staging = folder / SAVING
    if staging.is_symlink():  # what it leads to is somebody's
        staging.unlink()
    shutil.rmtree(staging, ignore_errors=True)
    try:
        for part in parts:
            part.save_pretrained(staging)
        names = sorted(path.relative_to(staging).as_posix() for path in staging.rglob("*") if path.is_file())
        for path in (folder / name.partition("/")[0] for name in names if "/" in name):
            if path.is_symlink():  # as above
                path.unlink()
        for name in names:
            flush(staging / name)
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(staging / name, folder / name)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    for place in {(folder / name).parent for name in names} | {folder}:
        flush(place)
    return names
