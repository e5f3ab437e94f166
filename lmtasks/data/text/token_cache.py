"""Tokenised text on disk: written as it is made, mapped into memory, and found again the next time.

An entry is found by everything that the tokens depend on: the text itself, the tokenizer, what the
recipe said about documents, and the code that tokenises. A recipe is not asked which version it is:
what it says is in its :class:`~lmtasks.Blocks`, and that is part of the key, so an edited recipe
finds old tokens only where they are the very ones that it wants. How the stream is cut is no part:
another block size uses the same tokens.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import numpy as np
from transformers import PreTrainedTokenizerBase

from lmtasks.api import Blocks
from lmtasks.api import blocks as blocks_module
from lmtasks.artifacts.failures import machine_failures
from lmtasks.artifacts.lock import holder, sign, signature
from lmtasks.config import caches
from lmtasks.data.corpus import Split
from lmtasks.data.text import special_tokens as special_module
from lmtasks.data.text import tokenize as stream_module
from lmtasks.data.text import word_boundaries as segmentation
from lmtasks.data.text.segmenters import identity_of
from lmtasks.data.text.tokenize import Stream
from lmtasks.progress import say

KEPT_FOR = 30 * 24 * 3600
"""Seconds after its last use that an entry is kept."""

RECORDED_EVERY = 5.0
"""Seconds of work that are lost at most when a process is killed."""

_ARRAYS: Mapping[str, Any] = {"ids": np.dtype(np.int32), "documents": np.dtype(np.int64), "words": np.dtype(np.bool_)}

_DAMAGED = (OSError, ValueError, KeyError, TypeError, AttributeError)
"""Errors of reading an entry whose files are not what they should be."""


def cache_folder() -> Path:
    """The place of tokenised text: ``tokens`` in lmtasks' folder of the user's cache."""
    return Path(caches.own(), "tokens")


def key_of(split: Split, tokenizer: PreTrainedTokenizerBase, blocks: Blocks) -> str | None:
    """32 hexadecimal digits that change with anything that the tokens depend on.

    None for a tokenizer in Python, which may depend on anything.
    """
    if not tokenizer.is_fast:
        return None
    parts = {
        "text": split.fingerprint,
        "tokenizer": tokenizer.backend_tokenizer.to_str(),
        "class": type(tokenizer).__qualname__,
        "special": {name: str(token) for name, token in tokenizer.special_tokens_map.items()},
        "split_special_tokens": tokenizer.split_special_tokens,
        "blocks": [blocks.document_start, blocks.document_end, blocks.line_by_line, blocks.words],
        "segmenter": identity_of(blocks.word_segmenter) if blocks.words else {},
        "code": [inspect.getsource(module) for module in (blocks_module, segmentation, special_module, stream_module)],
        "versions": [metadata.version(name) for name in ("transformers", "tokenizers", "regex")],
    }
    return hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=16).hexdigest()


def load(key: str) -> Stream | None:
    """The tokens kept under the key, mapped read-only; None when there are none, or damaged ones."""
    folder = cache_folder() / key
    try:
        stream = _opened(folder)
    except _DAMAGED:
        return None
    with suppress(OSError):  # a cache that can only be read
        os.utime(folder)
    return stream


def store(read: Callable[[int], Iterable[Stream]], key: str | None, fresh: bool = False) -> Stream:
    """Write pieces of a stream to disk as they come, and give back the whole, mapped read-only.

    What was written stays when this is interrupted, however it is, and the next time goes on from there.

    Args:
        read: the pieces after so many rows.
        key: where to keep it; None keeps it for as long as it is used.
        fresh: do not go on with what an interrupted process has left.
    """
    home = cache_folder()
    with ExitStack() as stack:
        folder = None
        if key is not None:
            folder, waited = stack.enter_context(_unfinished(home, key))
            # Whoever had the folder has made the very tokens.
            if waited and not fresh and (kept := load(key)) is not None:
                return kept
        if folder is None:
            folder, key = _folder_of_its_own(home, key)
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
        if fresh:
            (folder / "so_far.json").unlink(missing_ok=True)
        with machine_failures(folder, "or put the cache elsewhere (XDG_CACHE_HOME), then try again"):
            _write(folder, read)
        # What is mapped stays readable wherever it is moved, and after it was deleted, by whatever process.
        stream = _opened(folder)
        if key is not None:
            _forget_old(home)
            _put(folder, home / key, fresh)
        return stream


@contextmanager
def _unfinished(home: Path, key: str) -> Iterator[tuple[Path | None, bool]]:
    """The folder in which the entry is made, and whether another process had it until now, which was waited for.

    A process that was killed has it no longer. None where nobody can tell: without locks, and where this very process
    has it.
    """
    folder, waited = home / f"{key}.unfinished", False
    with ExitStack() as stack:
        mine = False
        with suppress(ImportError, OSError):  # Windows, or a file system without locks
            import fcntl

            # Whoever had it may have finished, and then the folder has become the entry.
            while not mine and not (waited and load(key) is not None):
                folder.mkdir(parents=True, exist_ok=True)
                lock = stack.enter_context((folder / "lock").open("a+"))
                had = _locked(lock, fcntl)
                if had is None:
                    break
                with suppress(FileNotFoundError):
                    mine = os.path.samestat(os.fstat(lock.fileno()), (folder / "lock").stat())
                waited = waited or had or not mine
        yield folder if mine else None, waited


def _locked(lock: TextIO, fcntl: Any) -> bool | None:
    """Whether another process had the lock until now; None where this very process has it.

    Raises:
        OSError: there are no locks here.
    """
    waited = False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        number = signature(lock)
        if number == str(os.getpid()):
            return None
        say(f"waiting for {holder(number)}, which tokenises the same text")
        fcntl.flock(lock, fcntl.LOCK_EX)
        waited = True
    sign(lock)
    return waited


def _folder_of_its_own(home: Path, key: str | None) -> tuple[Path, str | None]:
    """An empty folder, and the key, if what is made there can be kept."""
    try:
        home.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(dir=home, prefix="new-")), key
    except OSError:
        return Path(tempfile.mkdtemp(prefix="lmtasks-")), None


def _write(folder: Path, read: Callable[[int], Iterable[Stream]]) -> None:
    """Write the stream into the folder, or the rest of it."""
    done = _so_far(folder)
    for name in _ARRAYS:
        if not done[name]:  # a new file: to cut one short that is mapped would end the process that has it
            (folder / name).unlink(missing_ok=True)
    with ExitStack() as stack:
        files = {name: stack.enter_context((folder / name).open("ab")) for name in _ARRAYS}
        for name, kind in _ARRAYS.items():
            files[name].truncate(done[name] * kind.itemsize)
        counts, recorded = done, time.monotonic()
        try:
            for piece in read(int(done["rows"])):
                counts = _appended(files, piece, counts)
                if piece.rows:  # in the middle of a row nobody can go on
                    done = counts
                if time.monotonic() - recorded > RECORDED_EVERY:
                    _record(folder, files, done)
                    recorded = time.monotonic()
        except BaseException:
            _record(folder, files, done)
            raise
    # Written last: a folder that has it is complete.
    (folder / "stream.json").write_text(json.dumps(counts))
    (folder / "so_far.json").unlink(missing_ok=True)


def _so_far(folder: Path) -> dict[str, Any]:
    """The counts of an interrupted process, and how many items of each file it has written."""
    with suppress(*_DAMAGED):
        done: dict[str, Any] = json.loads((folder / "so_far.json").read_text())
        if all((folder / name).stat().st_size >= done[name] * kind.itemsize for name, kind in _ARRAYS.items()):
            return {**done, **{name: int(done[name]) for name in ("rows", "bytes", "unknown")}}
    return {"rows": 0, "bytes": 0, "unknown": 0, "special": {}, "unit": "documents", **dict.fromkeys(_ARRAYS, 0)}


def _appended(files: Mapping[str, BinaryIO], piece: Stream, counts: dict[str, Any]) -> dict[str, Any]:
    """Write a piece; the counts with it."""
    arrays = {"ids": piece.ids, "documents": piece.documents + counts["ids"], "words": piece.words}
    counts = {**counts, "unit": piece.unit}
    for name, array in arrays.items():
        if array is not None:
            files[name].write(np.ascontiguousarray(array, _ARRAYS[name]).data)
            counts[name] += len(array)
    for name in ("rows", "bytes", "unknown"):
        counts[name] += getattr(piece, name)
    return {**counts, "special": dict(Counter(counts["special"]) + Counter(piece.special))}


def _record(folder: Path, files: Mapping[str, BinaryIO], done: dict[str, Any]) -> None:
    """Say how far the files are good, once they are on the disk."""
    for file in files.values():
        file.flush()
        os.fsync(file.fileno())
    (folder / "so_far.new").write_text(json.dumps(done))
    os.replace(folder / "so_far.new", folder / "so_far.json")


def _opened(folder: Path) -> Stream:
    told = json.loads((folder / "stream.json").read_text())
    arrays = {name: _mapped(folder / name, kind) for name, kind in _ARRAYS.items()}
    if any(len(array) != told.pop(name) for name, array in arrays.items()):
        raise ValueError(f"{folder} is damaged")
    if not len(arrays["words"]) and len(arrays["ids"]):
        arrays["words"] = None
    return Stream(**arrays, **told)


def _mapped(file: Path, kind: Any) -> Any:
    # There is no mapping of nothing.
    return np.memmap(file, dtype=kind, mode="r") if file.stat().st_size else np.zeros(0, dtype=kind)


def _put(folder: Path, place: Path, fresh: bool) -> None:
    """Move a finished entry to its place, unless a good one is there that may stay.

    What is not wanted is first moved out of the way: under its old name another process may already have
    something new when it is deleted.
    """
    with tempfile.TemporaryDirectory(dir=place.parent, prefix="old-", ignore_cleanup_errors=True) as away:
        if fresh or load(place.name) is None:
            with suppress(OSError):
                place.rename(Path(away, "replaced"))
            with suppress(OSError):  # another process may be faster, with the same tokens
                folder.rename(place)
                return
        folder.rename(Path(away, "unwanted"))


def _forget_old(home: Path) -> None:
    """Delete what nobody has used for a month."""
    for entry in home.iterdir():
        with suppress(OSError):  # another process may do the same
            if time.time() - entry.stat().st_mtime > KEPT_FOR:
                shutil.rmtree(entry, ignore_errors=True)
