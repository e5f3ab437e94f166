"""The run folder, apart from all that the run reads."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lmtasks.artifacts.run_folder import choose_folder
from lmtasks.config.evaluation_sets import files_by_set
from lmtasks.config.request import Request
from lmtasks.data.prepared.place import place_for
from lmtasks.data.prepared.store import Store
from lmtasks.errors import InputError


def require_apart(request: Request) -> None:
    """Refuse a run folder that is, holds or lies in what the run reads: writing the one would change the other.

    Raises:
        InputError: names the folder, and the flag that reads it.
    """
    folder = choose_folder(request.recipe.name, request.output.output_dir)
    place = folder.resolve()
    for flag, path in what_is_read(request):
        real = path.resolve()
        if real == place:
            told = f"is what --{flag} reads"
        elif place in real.parents:
            told = f"holds '{path}', which --{flag} reads"
        elif real in place.parents and real.is_dir():
            told = f"is inside '{path}', which --{flag} reads"
        else:
            continue
        raise InputError(f"output_dir '{folder}' {told}", "give an --output_dir beside it")


def place_apart(request: Request, url: str) -> Store:
    """The place for prepared data, apart from what they are made of.

    Raises:
        InputError: it is not apart; or as :func:`lmtasks.data.prepared.place.place_for`.
    """
    if "://" not in url.removeprefix("file://"):
        require_apart(request)
    return place_for(request, url)


def what_is_read(request: Request) -> Iterator[tuple[str, Path]]:
    """What is there of the files and folders that a run reads, each with its flag."""
    model = request.model
    for flag in ("model_name_or_path", "config_name", "tokenizer_name", "add_tokens"):
        if isinstance(name := getattr(model, flag), str):
            yield from ((flag, path) for path in _there(name))
    yield from _data(vars(request.data))
    for source in (request.data.data or {}).get("sources", ()) if isinstance(request.data.data, dict) else ():
        yield from _data(source)


def _data(settings: Mapping[str, Any]) -> Iterator[tuple[str, Path]]:
    named = files_by_set(settings.get("validation_file") or []).values()
    for flag, names in (
        ("dataset_name", [settings.get("dataset_name")]),
        ("prepared", [str(settings.get("prepared") or "").removeprefix("file://")]),
        ("train_file", settings.get("train_file") or []),
        ("validation_file", [file for files in named for file in files]),
    ):
        yield from ((flag, path) for name in names if name for path in _there(name))


def _there(name: str) -> Iterator[Path]:
    try:
        path = Path(name).expanduser()
        if path.exists():
            yield path
        elif glob.has_magic(name):
            yield from map(Path, glob.iglob(str(path), recursive=True))
    except (OSError, ValueError, RuntimeError):  # no name of a file at all, which is told where it is read
        return
