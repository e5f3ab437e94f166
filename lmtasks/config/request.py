"""From names and values, however they were given, to a checked request."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from contextlib import suppress
from copy import copy
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from lmtasks.api import Engine, Option, Recipe, convert, knowing, options_of
from lmtasks.config.elsewhere import ELSEWHERE, ENGINES, PEERS
from lmtasks.config.engines import chosen_engine, fitted_to, misfits, require_processes
from lmtasks.config.hooks import NO_HOOKS, Hooks
from lmtasks.config.mix import read_mix
from lmtasks.config.presets import Preset, chosen_by
from lmtasks.config.problems import Problems, refuse_contradictions, refuse_unfit
from lmtasks.config.settings import (
    HOW_TO_TOKENISE,
    NUMBERS,
    AdapterSettings,
    BatchSettings,
    DataSettings,
    LoopSettings,
    ModelSettings,
    OutputSettings,
    StoppingSettings,
    TrainingSettings,
)
from lmtasks.config.yaml_file import read_mapping
from lmtasks.errors import InputError, nearest

MODEL_SOURCES = ("model_name_or_path", "model_type", "config_name")
DATA_SOURCES = ("dataset_name", "train_file", "train_dataset", "validation_file", "eval_dataset", "data", "prepared")

OTHER_TEXT = {*options_of(DataSettings), "tokenizer_name", "add_tokens"} - {"max_eval_samples", *HOW_TO_TOKENISE}
"""Settings with which an evaluation is not of the tokens that a run held out."""

SETTINGS: dict[str, Any] = {
    "data": DataSettings,
    "model": ModelSettings,
    "adapter": AdapterSettings,
    "output": OutputSettings,
    "batch": BatchSettings,
    "stopping": StoppingSettings,
    "loop": LoopSettings,
}
"""The settings of every recipe, by the field of a :class:`Request`."""

LATER = {
    **options_of(LoopSettings),
    **options_of(AdapterSettings),
    **{name: options_of(ModelSettings)[name] for name in (*NUMBERS, "attn_implementation", "unigram_bias")},
    "prepared_lanes": options_of(DataSettings)["prepared_lanes"],
}
"""Settings that the records of earlier versions do not have: only where somebody set them do others have them."""

RECIPE = "recipe"
"""The name in a config under which it may say what recipe it is for."""

ALWAYS = ("do_train", "do_eval")
"""Flags of ``run_mlm.py`` for what a run always does; accepted when true."""


@dataclass(frozen=True)
class Request:
    """A task for a recipe, checked as far as names and values go.

    Args:
        training: ``TrainingArguments`` by name.
        given: names that the user set, rather than a default.
        sample: the embedded text to use, when no data was given.
        extensions: options of each extension that has any, by its name.
        engine: what trains; None where the recipe is of no catalog.
        engine_options: those of the engine; None where it has none.
        preset: what the preset chose, if there is one.
        hooks: what a Python program wants called.
    """

    recipe: Recipe
    options: Any
    data: DataSettings
    model: ModelSettings
    adapter: AdapterSettings
    output: OutputSettings
    batch: BatchSettings
    stopping: StoppingSettings
    loop: LoopSettings
    training: Mapping[str, Any]
    given: frozenset[str]
    sample: str | None
    extensions: Mapping[str, Any]
    engine: Engine | None = None
    engine_options: Any = None
    preset: Preset = field(default_factory=dict)
    hooks: Hooks = NO_HOOKS

    @cached_property
    def bound(self) -> Recipe:
        """The recipe with a loss that is called with model and batch, whether or not it wants the options."""
        bound = copy(self.recipe)  # not replace: what is known beside the fields stays
        object.__setattr__(bound, "loss", knowing(self.recipe.loss, self.options))
        return bound

    @property
    def seed(self) -> int:
        """The seed of weights, order and masks."""
        return int(self.training["seed"])

    @property
    def starts_small(self) -> bool:
        """Whether the recipe's own small model is trained, because nobody named one."""
        return not self.given & set(MODEL_SOURCES)


def groups_of(recipe: Recipe) -> dict[str, dict[str, Option]]:
    """Everything that can be set without importing anything heavy, by where it belongs."""
    kinds = {"options": recipe.options, **SETTINGS, "training": TrainingSettings}
    own = {name: options_of(kind) for name, kind in kinds.items()}
    own |= {f"extension {one.name}": one.flags for one in recipe.extensions if one.options}
    return own | {f"engine {one.name}": one.flags for one in recipe.engines.values() if one.options}


def configure(recipe: Recipe, values: Mapping[str, Any], config: Mapping[str, Any] | None = None) -> Request:
    """The request that these values make, with the recipe's starter where they say nothing.

    Args:
        values: names, with ``-`` or ``_``, and values as typed or as Python has them. A value of
            None counts as not given.
        config: more of these, which ``values`` win over, whatever alias either was given by.

    Raises:
        InputError: unknown names, values out of range, contradictions; all of them at once.
    """
    groups, problems = groups_of(recipe), Problems()
    given = _given(recipe, groups, values, config or {}, problems)
    refuse_contradictions(recipe, given, problems)
    defaults: dict[str, Any] = {}
    with problems.collecting():
        defaults = _starter(recipe, given)
    known = {name for group in groups.values() for name in group}
    preset = chosen_by(given.get("preset"), known, given, new="model_name_or_path" not in given)
    defaults |= {name: choice.value for name, choice in preset.items()}
    parts = _parts(groups, {**defaults, **given}, problems)
    training = {name: option.default for name, option in groups["training"].items()} | parts["training"]
    settings = {name: kind(**parts[name]) for name, kind in SETTINGS.items()}
    refuse_unfit(settings, training, frozenset(given), problems)
    engine = None
    with problems.collecting():
        engine = chosen_engine(recipe, settings["loop"].engine, parts)
    if engine is not None:
        with problems.collecting():
            require_processes(engine)
        problems += misfits(engine, training, given, settings["output"].resume_from_checkpoint)
        training = fitted_to(engine, training)
    problems.tell()
    return Request(
        recipe=recipe,
        options=recipe.options(**parts["options"]),
        training=training,
        **settings,
        given=frozenset(given),
        sample=recipe.starter.sample if recipe.starter and not given.keys() & set(DATA_SOURCES) else None,
        extensions={one.name: one.chosen(parts[f"extension {one.name}"]) for one in recipe.extensions if one.options},
        preset=preset,
        engine=engine,
        engine_options=engine.chosen(parts[f"engine {engine.name}"]) if engine and engine.options else None,
    )


def _given(
    recipe: Recipe,
    groups: Mapping[str, Mapping[str, Option]],
    values: Mapping[str, Any],
    config: Mapping[str, Any],
    problems: Problems,
) -> dict[str, Any]:
    """What was given, in a config and beside it, under the options' own names."""
    of = str(config.get(RECIPE, recipe.name))
    other = of.rpartition(":")[2].replace("_", "-") != recipe.name and ".py" not in of
    problems.refuse(other, f"the config is for the recipe '{of}', and this is {recipe.name}", "take its own config")
    written = {name: value for name, value in config.items() if name != RECIPE}
    return {**_named(groups, written, problems), **_named(groups, values, problems)}


def _parts(
    groups: Mapping[str, Mapping[str, Option]], values: Mapping[str, Any], problems: Problems
) -> dict[str, dict[str, Any]]:
    """The values, each as its option wants it, by the option's group."""
    parts: dict[str, dict[str, Any]] = {name: {} for name in groups}
    for name, value in values.items():
        with problems.collecting():
            group, option = _place(groups, name)
            parts[group][name] = convert(option, value)
            if isinstance(value, str) and not value and group != "training" and name != "output_dir":
                raise InputError(f"--{name} is empty", "give it a value, or leave it out")
            if name == "data":  # the record of a run has the whole mix, not the name of a file
                parts[group][name] = read_mix(parts[group][name])
    return parts


def _named(groups: Mapping[str, Mapping[str, Option]], values: Mapping[str, Any], problems: Problems) -> dict[str, Any]:
    """The values that are given under their options' own names."""
    own = {alias: option.name for group in groups.values() for option in group.values() for alias in option.aliases}
    named: dict[str, Any] = {}
    for typed, value in values.items():
        if value is None:
            continue
        name = typed.replace("-", "_")
        name = own.get(name, name)
        problems.refuse(name in named, f"--{name} is given twice, as '{name}' and as '{typed}'", "give it once")
        named[name] = value
    for name in ALWAYS:
        unwanted = str(named.pop(name, True)).lower() not in ("true", "1")
        message = f"--{name} false: a run always trains and evaluates"
        problems.refuse(unwanted, message, "lmtasks evaluate MODEL evaluates")
    return named


def _place(groups: Mapping[str, Mapping[str, Option]], name: str) -> tuple[str, Option]:
    """The group and the option of a name.

    Raises:
        InputError: nobody knows the name; suggests the nearest.
    """
    for group, options in groups.items():
        if name in options:
            return group, options[name]
    if name in ELSEWHERE:
        raise InputError(f"--{name} does not exist here: {ELSEWHERE[name]}", f"leave --{name} out")
    # Only a name that is none of ours costs the import of transformers.
    from lmtasks.config.training_arguments import REFUSED, training_options

    if name in REFUSED:
        raise InputError(f"--{name} is not supported: {REFUSED[name]}", f"leave --{name} out")
    training = training_options()
    if name in training:
        return "training", training[name]
    engine = re.split(r"[._]", name)[0]
    if engine in ENGINES and f"engine {engine}" not in groups:
        raise InputError(
            f"--{name} is of the engine {engine}, which is not there",
            f"pip install '{ENGINES[engine]}'; lmtasks plugins tells whether it is broken",
        )
    known = [*(own for options in groups.values() for own in options), *training]
    if name in PEERS:
        raise InputError(f"unknown option '--{name}'", f"here it is --{PEERS[name]}")
    raise InputError(f"unknown option '--{name}'{nearest(name, known)}", "--help-all shows every option")


def _starter(recipe: Recipe, given: dict[str, Any]) -> dict[str, Any]:
    """The recipe's own model and training settings, when the user named no model."""
    if given.keys() & set(MODEL_SOURCES):
        return {}
    if recipe.starter is None:
        raise InputError(f"{recipe.name} needs a model", "add --model with a folder or id")
    defaults = {**recipe.starter.model, **recipe.starter.training}
    if "config_overrides" in given and "config_overrides" in defaults:
        # The small model with a change, not the architecture's full size with one.
        given["config_overrides"] = f"{defaults['config_overrides']},{given['config_overrides']}"
    # Which tokenizer, and how long to train, are one decision each, however it is put.
    for decision in ({"tokenizer_name", "train_tokenizer"}, {"max_steps", "num_train_epochs"}):
        if decision & given.keys():
            defaults = {name: value for name, value in defaults.items() if name not in decision}
    return defaults


def refuse_idle(recipe: Recipe, typed: frozenset[str]) -> None:
    """Refuse what an evaluation would silently leave aside, unless it comes from the run's own record."""
    groups = groups_of(recipe)
    takes = [option for group in ("options", "data", "model") for option in groups[group].values()]
    used = {option.name for option in takes if not option.training_only}
    for name in sorted(typed - used - {"per_device_eval_batch_size", "seed"}):
        alike = {f"eval_{name}", name.replace("train", "eval")} & used
        hint = f"--{alike.pop()} is its like for evaluation" if alike else "lmtasks evaluate --help shows what does"
        raise InputError(f"--{name} means nothing to an evaluation", hint)


def recorded_values(record: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a run, and its data unless the user names other data."""
    settings = {} if set(values) & {*DATA_SOURCES, "dataset"} else record.get("settings", {})
    data = {name: value for name, value in settings.items() if name in options_of(DataSettings)}
    numbers = {name: value for name, value in record.get("settings", {}).items() if name in NUMBERS}
    return {**record.get("options", {}), **data, **numbers}


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The values in a YAML file.

    Raises:
        InputError: no such file, not YAML, or not a mapping.
    """
    return read_mapping(path, "config", "learning_rate: 1e-4")


def fingerprint(request: Request) -> str:
    """32 hexadecimal digits that change with anything that was asked for."""
    files = [_words_of(request.model.add_tokens)]
    files += [_words_of(request.adapter.peft_config)] if request.adapter.peft_config else []
    asked = json.dumps([as_record(request), *files], sort_keys=True, default=str)
    return hashlib.blake2b(asked.encode(), digest_size=16).hexdigest()


def _words_of(file: Any) -> str:
    """What a file that a setting names holds, in short; whether it can be read is looked at elsewhere."""
    with suppress(OSError, ValueError):
        if isinstance(file, str):
            return hashlib.blake2b(Path(file).read_bytes(), digest_size=16).hexdigest()
    return ""


def as_record(request: Request) -> dict[str, Any]:
    """The part of a request that ``run.json`` keeps: all that was set and matters, but for what only memory holds."""
    groups = (request.data, request.model, request.adapter, request.batch, request.stopping, request.loop)
    settings = {name: value for group in groups for name, value in vars(group).items()}
    left_out = {name for name, option in options_of(DataSettings).items() if option.python_only} | HOW_TO_TOKENISE
    left_out |= {name for name, option in LATER.items() if settings[name] == option.default}
    extended: dict[str, Any] = {}
    for one in request.recipe.extensions:
        extended |= one.changed(request.extensions[one.name]) if one.options else {}
    return {
        "recipe": request.recipe.name,
        "options": asdict(request.options),
        "settings": {name: value for name, value in settings.items() if value is not None and name not in left_out},
        "training": dict(request.training),
        **({"extensions": extended} if extended else {}),
        **({"engine_options": engine} if (engine := _changed(request)) else {}),
    }


def _changed(request: Request) -> dict[str, Any]:
    """The options of the engine that are not the default, under the names that people type."""
    options = request.engine_options
    return request.engine.changed(options) if request.engine and options is not None else {}
