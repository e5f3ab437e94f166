"""The files that hold a model's weights: safetensors, in the model's own folder, and nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from safetensors import safe_open
from transformers.utils import CONFIG_NAME, SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, cached_file

from lmtasks.errors import InputError, first_line
from lmtasks.models.load_errors import is_local

_FILE = re.compile(r"[\w-][\w.-]*\.safetensors")


def require_safetensors(name: str) -> None:
    """Refuse a folder without weights, with pickled ones only, or with an index that leads out of it.

    Raises:
        InputError: one of these.
    """
    require_no_danger(name)
    if is_local(name) and not any(Path(name).glob("*.safetensors")):
        raise InputError(f"'{name}' has no weights (*.safetensors)", "give the folder of a saved model")


def require_no_danger(name: str) -> None:
    """Refuse a folder with pickled weights only, or one that is damaged or leads out of it where it names its weights.

    A folder without any weights is none; nothing in it is loaded.

    Raises:
        InputError: one of these.
    """
    if not is_local(name):
        return
    folder = Path(name)
    require_own_name(folder)
    for index in sorted(folder.glob("*.safetensors.index.json")):
        _require_own_shards(index)
    if any(folder.glob("*.bin")) and not any(folder.glob("*.safetensors")):
        raise InputError(
            f"'{name}' has its weights as pickle (.bin), which can run code when loaded",
            "save them as safetensors: from_pretrained, then save_pretrained, in an environment you trust",
        )


def folder_of(name: str, revision: str) -> Path:
    """Where a model's configuration lies, and its weights: the folder itself, or the Hub's cache of it."""
    return Path(name) if is_local(name) else Path(str(cached_file(name, CONFIG_NAME, revision=revision))).parent


def require_own_name(folder: Path) -> None:
    """Refuse a configuration that names weights of its own which are no safetensors beside it.

    Raises:
        InputError: this is one.
    """
    own = _own_name(folder)
    if own is not None and not (isinstance(own, str) and _FILE.fullmatch(own.removesuffix(".index.json"))):
        raise _foreign(folder / CONFIG_NAME, own)


def _require_own_shards(index: Path) -> None:
    """Refuse an index of sharded weights that is damaged, or whose files are not those beside it."""
    try:
        shards = _shards(index)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"'{index}' is damaged: {first_line(error)}", "download or copy it again") from error
    for shard in shards:
        if not isinstance(shard, str) or not _FILE.fullmatch(shard):
            raise _foreign(index, shard)


def _shards(index: Path) -> set[str]:
    return set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())


def _own_name(folder: Path) -> Any:
    """What the configuration names its weights, where it does not leave that to transformers."""
    try:
        said = json.loads((folder / CONFIG_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None  # whoever reads it as a configuration says what is wrong
    return said.get("transformers_weights") if isinstance(said, dict) else None


def _foreign(file: Path, named: object) -> InputError:
    return InputError(f"'{file}' names {named!r}, which is no file of weights beside it", "do not use this model")


def saved_kinds(folder: Path) -> dict[str, str]:
    """The kind of number, as safetensors writes it (``F32``, ``I8``, ...), of each weight in the folder of a model.

    None where the Hub has made safetensors of pickled weights: these lie elsewhere.
    """
    whole = folder / (_own_name(folder) or SAFE_WEIGHTS_NAME)
    listed = whole if whole.is_file() else folder / SAFE_WEIGHTS_INDEX_NAME
    kinds: dict[str, str] = {}
    if not listed.is_file():
        return kinds
    for file in sorted(_shards(listed)) if listed.suffix == ".json" else [listed.name]:
        with safe_open(folder / file, framework="pt") as weights:
            kinds |= {key: weights.get_slice(key).get_dtype() for key in weights.keys()}  # noqa: SIM118  (no dict)
    return kinds
