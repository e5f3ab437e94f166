"""Looks for secrets, and for paths of this machine, in what the tests leave and say.

The whole suite runs with a token in the environment that no test writes anywhere itself. Whatever has it in the end,
lmtasks or a library below it has put there.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from hub_server import TOKEN as HUB_TOKEN

from lmtasks.artifacts.redact import redacted

SUITE_TOKEN = "hf_" + "TokenOfTheTests" * 2 + "0123"
"""``HF_TOKEN`` of the suite, unless a test sets its own."""

LARGEST = 1 << 20
"""Bytes of the largest file that is read to its end; of a larger one, the first and the last so many."""

PLAIN = re.compile(r"README\.md|(?:all|train|eval)_results\.json|log\.jsonl|trainer_state\.json")
"""Files of a run in which no path of the machine belongs; ``run.json`` has them, and is redacted when published."""


def secrets_in(data: bytes, secrets: Iterable[str] = (SUITE_TOKEN, HUB_TOKEN)) -> list[str]:
    """Those of the secrets that some bytes hold, as they are or as wide characters."""
    return [one for one in secrets if one.encode() in data or one.encode("utf-16-le") in data]


def findings(folder: Path, secrets: Iterable[str] = (SUITE_TOKEN, HUB_TOKEN), paths: Iterable[str] = ()) -> list[str]:
    """What is wrong with the files below a folder, a line each.

    Args:
        paths: of this machine, which may not stand in what is published of a run.
    """
    return [line for path in files(folder) for line in _findings(path, tuple(secrets), tuple(paths))]


def files(folder: Path) -> Iterator[Path]:
    """The regular files below a folder that can be read; links are not followed."""
    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place, name)
            if path.is_file() and not path.is_symlink() and os.access(path, os.R_OK):
                yield path


def _findings(path: Path, secrets: tuple[str, ...], paths: tuple[str, ...]) -> Iterator[str]:
    try:
        data = _read(path)
    except OSError:
        return  # it went away, or cannot be read
    yield from (f"{path} holds the token {one[:8]}..." for one in secrets_in(data, secrets))
    public = b""
    if path.name == "run.json":
        try:
            public = json.dumps(redacted(json.loads(data)), ensure_ascii=False).encode(errors="replace")
        except (ValueError, RecursionError):
            return  # a damaged one, which is not published
    elif PLAIN.fullmatch(path.name) and (path.parent / "run.json").is_file():
        public = data
    yield from (f"{path} would publish the path {one}" for one in paths if one.encode() in public)


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size <= LARGEST:
            return file.read()
        first = file.read(LARGEST)
        file.seek(-LARGEST, os.SEEK_END)
        return first + file.read()
