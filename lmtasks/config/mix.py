"""A mix: several sources to train on, with weights, as ``--data`` names it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from lmtasks.api import Option, convert, options_of
from lmtasks.config.evaluation_sets import check_names
from lmtasks.config.settings import HOW_TO_TOKENISE, DataSettings
from lmtasks.config.yaml_file import read_mapping
from lmtasks.errors import InputError, nearest

STRATEGIES = ("first_exhausted", "all_exhausted")
"""What ends an epoch, after ``datasets.interleave_datasets``: the first source that runs out, or the last."""

_OF_THE_RUN = {"data", "max_train_samples", "max_eval_samples", *HOW_TO_TOKENISE}
_TRAINING = ("dataset_name", "train_file")
_SHORT = {"split": "train_split", "probability": "weight"}
"""Further names of the keys of a source."""

_EXAMPLE = "sources: [{name: wiki, train_file: wiki.txt, weight: 0.8}, {name: code, train_file: src, weight: 0.2}]"


def source_options() -> dict[str, Option]:
    """The data settings that a source may have, by name: those that say what it is and how it is read."""
    every = options_of(DataSettings).items()
    return {name: option for name, option in every if name not in _OF_THE_RUN and not option.python_only}


def read_mix(said: str | Mapping[str, Any]) -> dict[str, Any]:
    """A mix, checked and written out.

    Args:
        said: a YAML file, or what stands in one.

    Returns:
        ``sources``, a list with ``name``, ``weight`` and data settings under their own names for each, and
        ``stopping_strategy``. Reading it again changes nothing.

    Raises:
        InputError: names the file, the source and the key.
    """
    where = f"--data '{said}'" if isinstance(said, str) else "--data"
    content = read_mapping(said, "data", _EXAMPLE) if isinstance(said, str) else said
    for key in content:
        if key not in ("sources", "stopping_strategy"):
            known = nearest(str(key), ["sources", "stopping_strategy"])
            raise InputError(f"{where}: unknown key '{key}'{known}", f"for example: {_EXAMPLE}")
    listed = content.get("sources")
    if not isinstance(listed, list) or not listed or not all(isinstance(one, Mapping) for one in listed):
        raise InputError(f"{where}: sources must be a list with the keys of each source", f"for example: {_EXAMPLE}")
    strategy = content.get("stopping_strategy", STRATEGIES[0])
    if strategy not in STRATEGIES:
        close = nearest(str(strategy), STRATEGIES)
        message = f"{where}: stopping_strategy cannot be '{strategy}'{close}"
        raise InputError(message, f"one of {', '.join(STRATEGIES)}")
    sources = [_source(where, number, one) for number, one in enumerate(listed, start=1)]
    names = [source["name"] for source in sources]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InputError(f"{where}: two sources have the name '{twice}'", "give one of them another name")
    try:
        check_names(names)
    except InputError as error:
        raise _within(where, error) from error
    if not any(source["weight"] for source in sources):
        raise InputError(f"{where}: every weight is 0", "give a source a weight above 0")
    return {"sources": sources, "stopping_strategy": strategy}


def _source(where: str, number: int, said: Mapping[str, Any]) -> dict[str, Any]:
    """One source, checked, under its keys' own names."""
    if said.get("name") is None:
        raise InputError(f"{where}: source {number} has no name", "add name, such as name: wiki")
    where = f"{where}, source '{said['name']}'"
    options = source_options()
    own = {alias: option.name for option in options.values() for alias in option.aliases} | _SHORT
    source: dict[str, Any] = {}
    for typed, value in said.items():
        key = own.get(str(typed).replace("-", "_"), str(typed).replace("-", "_"))
        if key in source:
            raise InputError(f"{where}: {key} is given twice, as '{key}' and as '{typed}'", "give it once")
        if key not in ("name", "weight", *options):
            known = nearest(key, ["name", "weight", *own, *options])
            advice = f"a source has name, weight, and how its data are read: {', '.join(_TRAINING)}, text_column, ..."
            raise InputError(f"{where}: unknown key '{typed}'{known}", advice)
        try:
            converted = convert(options[key], value) if key in options and value is not None else value
        except InputError as error:
            raise _within(where, error) from error
        if converted is not None:
            source[key] = converted
    source["weight"] = _weight(where, source.get("weight"))
    given = [key for key in _TRAINING if key in source]
    if len(given) != 1:
        told = "has no data to train on" if not given else "has both dataset_name and train_file"
        raise InputError(f"{where} {told}", "give it train_file or dataset_name")
    return {"name": source.pop("name"), "weight": source.pop("weight"), **source}


def _weight(where: str, value: Any) -> float:
    if value is None:
        raise InputError(f"{where} has no weight", "weight: 0.5; only how weights compare matters")
    option = Option(name="weight", type=float, default=None)
    try:
        weight = float(convert(option, value))
    except InputError as error:
        raise InputError(f"{where}: weight cannot be {value!r}: it must be a number", "weight: 0.5") from error
    if weight < 0 or not math.isfinite(weight):
        raise InputError(f"{where}: weight cannot be {value!r}: it must be at least 0", "weight: 0.5")
    return weight


def _within(where: str, error: InputError) -> InputError:
    return InputError(f"{where}: {error.message}", error.hint)
