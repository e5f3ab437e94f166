"""Redaction: what a record may tell the world, without secrets and paths of this machine."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

REDACTED = "[redacted]"


LOCAL_PATH = "[local path]"


HUB_TOKEN = re.compile(r"hf_[A-Za-z0-9]{20,}")


# "token" as a word of its own: "train_tokens_per_second", "tokens" and "tokenizer_name" are no secrets.
_SECRET_KEY = re.compile(
    r"(?:^|[_-])(?:token|secrets?|password|passwd|passphrase|credentials?|(?:api|access|private)[_-]?key)(?:$|[_-])"
)


_SPECIAL_TOKEN_KEY = re.compile(r"^(?:pad|mask|eos|bos|unk|sep|cls|special)_token")


_PATH_BREAK = r"\s/\\'\"`<>|,;()\[\]{}"


_PATH_INSIDE = re.compile(
    rf"file://\S+"
    rf"|(?<![\w/:.\\])(?:~[\w.-]*|\.\.)[\\/][^\s'\"`<>|,;]+"
    rf"|(?<!\w)[A-Za-z]:[\\/][^\s'\"`<>|,;]+"
    rf"|(?<![\w\\])\\\\\w[^\s'\"`<>|,;]*"
    rf"|(?<![\w/.\\<])/(?:[^{_PATH_BREAK}]+/)+[^{_PATH_BREAK}]*"
)


_WHOLE_PATH = re.compile(r"(?:file://|(?:~[\w.-]*|\.\.)[\\/]|[A-Za-z]:[\\/]|\\\\\w|/(?!/)[^\s/]).*", re.DOTALL)


# A file's own name says what it is; a folder's may be a person's.
_DATA_FILE = re.compile(
    r"\.(?:txt|raw|md|jsonl?|csv|tsv|parquet|arrow|ya?ml|wav|flac|ogg|opus|mp3)(?:\.(?:gz|xz|zst|bz2|zip))?$",
    re.IGNORECASE,
)


def redacted(value: Any) -> Any:
    """A copy of a JSON value that is fit to publish: no secrets and no absolute paths of this machine.

    A path becomes the name of its file where that is a data file, else ``[local path]``.
    """
    if isinstance(value, Mapping):
        return {_public_text(str(key)): _public_entry(str(key), entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [redacted(item) for item in value]
    if isinstance(value, str | os.PathLike):
        return _public_text(str(value))
    return value


def _public_entry(key: str, value: Any) -> Any:
    return REDACTED if _is_secret(key) and not isinstance(value, int | float | None) else redacted(value)


def _is_secret(key: str) -> bool:
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", key).lower()
    return bool(_SECRET_KEY.search(words)) and not _SPECIAL_TOKEN_KEY.match(words)


def _public_text(text: str) -> str:
    text = HUB_TOKEN.sub(REDACTED, text)
    # Only a text that is a path as a whole may hold blanks; inside a sentence a blank ends it.
    if "\n" not in text and _WHOLE_PATH.fullmatch(text):
        return _public_path(text)
    return _PATH_INSIDE.sub(lambda match: _public_path(match[0]), text)


def _public_path(path: str) -> str:
    name = PurePosixPath(path.replace("\\", "/")).name
    return name if _DATA_FILE.search(name) else LOCAL_PATH
