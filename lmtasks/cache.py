"""Tokenised text on disk: written as it is made, mapped into memory, and found again the next time.

An entry is found by everything that the tokens depend on: the text itself, the tokenizer, what the
recipe said about documents, and the code that tokenises. A recipe is not asked which version it is:
what it says is in its :class:`~lmtasks.Blocks`, and that is part of the key, so an edited recipe
finds old tokens only where they are the very ones that it wants. How the stream is cut is no part:
another block size uses the same tokens.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from lmtasks import blocks as blocks_module
from lmtasks import segmentation
from lmtasks import stream as stream_module
from lmtasks.blocks import Blocks
from lmtasks.corpus import Split
from lmtasks.stream import Stream

KEPT_FOR = 30 * 24 * 3600
"""Seconds after its last use that an entry is kept."""

_ARRAYS = {"ids": np.int32, "documents": np.int64, "words": np.bool_}


def cache_folder() -> Path:
    """Where tokenised text is kept: ``tokens`` in lmtasks' folder of the user's cache."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(home, "lmtasks", "tokens")


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
        "code": [_source(module) for module in (blocks_module, segmentation, stream_module)],
        "versions": [metadata.version(name) for name in ("transformers", "tokenizers", "regex")],
    }
    return hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=16).hexdigest()


def _source(module: Any) -> str:
    return hashlib.blake2b(Path(module.__file__).read_bytes(), digest_size=16).hexdigest()


def load(key: str) -> Stream | None:
    """The tokens kept under the key, mapped read-only; None when there are none, or damaged ones."""
    folder = cache_folder() / key
    try:
        stream = _opened(folder)
    except (OSError, ValueError, KeyError):
        return None
    os.utime(folder)
    return stream


def store(pieces: Iterable[Stream], key: str | None) -> Stream:
    """Write pieces of a stream to disk as they come, and give back the whole, mapped read-only.

    Args:
        key: where to keep it; None keeps it for as long as it is used.
    """
    home = cache_folder()
    try:
        home.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=home, prefix="new-"))
    except OSError:
        folder, key = Path(tempfile.mkdtemp(prefix="lmtasks-")), None
    try:
        _write(folder, pieces)
        if key is not None:
            _forget_old(home)
            folder = _moved(folder, home / key)
        return _opened(folder)
    finally:
        # What is mapped stays readable after it was deleted.
        if folder.name != key:
            shutil.rmtree(folder, ignore_errors=True)


def _write(folder: Path, pieces: Iterable[Stream]) -> None:
    counts = {"rows": 0, "bytes": 0, "unknown": 0}
    tokens, unit, words = 0, "documents", False
    with (
        (folder / "ids").open("wb") as ids,
        (folder / "documents").open("wb") as documents,
        (folder / "words").open("wb") as starts,
    ):
        for piece in pieces:
            ids.write(np.ascontiguousarray(piece.ids, np.int32).data)
            documents.write(np.ascontiguousarray(piece.documents + tokens, np.int64).data)
            if piece.words is not None:
                words = True
                starts.write(np.ascontiguousarray(piece.words, np.bool_).data)
            tokens += len(piece.ids)
            unit = piece.unit
            counts = {name: count + getattr(piece, name) for name, count in counts.items()}
    # Written last: a folder that has it is complete.
    (folder / "stream.json").write_text(json.dumps({**counts, "tokens": tokens, "unit": unit, "words": words}))


def _opened(folder: Path) -> Stream:
    told = json.loads((folder / "stream.json").read_text())
    arrays = {name: _mapped(folder / name, kind) for name, kind in _ARRAYS.items()}
    if len(arrays["ids"]) != told.pop("tokens"):
        raise ValueError(f"{folder} is damaged")
    if not told.pop("words"):
        arrays["words"] = None
    elif len(arrays["words"]) != len(arrays["ids"]):
        raise ValueError(f"{folder} is damaged")
    return Stream(**arrays, **told)


def _mapped(file: Path, kind: Any) -> Any:
    # There is no mapping of nothing.
    return np.memmap(file, dtype=kind, mode="r") if file.stat().st_size else np.zeros(0, dtype=kind)


def _moved(folder: Path, place: Path) -> Path:
    """Put a finished entry in its place, instead of an older one."""
    shutil.rmtree(place, ignore_errors=True)
    try:
        folder.rename(place)
    except OSError:  # another process was faster, with the same tokens
        return folder
    return place


def _forget_old(home: Path) -> None:
    """Delete what nobody has used for a month."""
    for entry in home.iterdir():
        try:
            if time.time() - entry.stat().st_mtime > KEPT_FOR:
                shutil.rmtree(entry, ignore_errors=True)
        except OSError:
            continue
