"""The files that hold a model's weights: safetensors, in the model's own folder, and nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path

from safetensors import safe_open
from transformers.utils import CONFIG_NAME, SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, cached_file

from lmtasks.errors import InputError, first_line
from lmtasks.models.load_errors import is_local


def require_safetensors(name: str) -> None:
    """Refuse a folder without weights, with pickled ones only, or with an index that leads out of it.

    Raises:
        InputError: one of these.
    """
    require_no_danger(name)
    if is_local(name) and not any(Path(name).glob("*.safetensors")):
        raise InputError(f"'{name}' has no weights (*.safetensors)", "give the folder of a saved model")


def require_no_danger(name: str) -> None:
    """Refuse a folder with pickled weights only, or with an index that is damaged or leads out of it.

    A folder without any weights is none; nothing in it is loaded.

    Raises:
        InputError: one of these.
    """
    if not is_local(name):
        return
    _require_own_shards(name)
    if any(Path(name).glob("*.bin")) and not any(Path(name).glob("*.safetensors")):
        raise InputError(
            f"'{name}' has its weights as pickle (.bin), which can run code when loaded",
            "save them as safetensors: from_pretrained, then save_pretrained, in an environment you trust",
        )


def _require_own_shards(name: str) -> None:
    """Refuse an index of sharded weights that is damaged, or whose files are not those beside it."""
    index = Path(name, SAFE_WEIGHTS_INDEX_NAME)
    if not index.is_file():
        return
    try:
        shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"'{index}' is damaged: {first_line(error)}", "download or copy it again") from error
    for shard in shards:
        if not isinstance(shard, str) or not re.fullmatch(r"[\w-][\w.-]*\.safetensors", shard):
            raise InputError(
                f"'{index}' names {shard!r}, which is no file of weights beside it", "do not use this model"
            )


def saved_kinds(name: str, revision: str) -> dict[str, str]:
    """The kind of number, as safetensors writes it (``F32``, ``I8``, ...), of each weight of a model that is loaded."""
    config = Path(name, CONFIG_NAME) if is_local(name) else cached_file(name, CONFIG_NAME, revision=revision)
    folder = Path(str(config)).parent
    files = [SAFE_WEIGHTS_NAME]
    if not folder.joinpath(SAFE_WEIGHTS_NAME).is_file():
        files = sorted(set(json.loads(folder.joinpath(SAFE_WEIGHTS_INDEX_NAME).read_text())["weight_map"].values()))
    kinds: dict[str, str] = {}
    for file in files:
        with safe_open(folder / file, framework="pt") as weights:
            kinds |= {key: weights.get_slice(key).get_dtype() for key in weights.keys()}  # noqa: SIM118  (no dict)
    return kinds
