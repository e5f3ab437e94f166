"""Evaluation of a run or of any model, without training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import PretrainedConfig

from lmtasks.api import Examples, Recipe, options_of
from lmtasks.artifacts.run_folder import (
    read_record,
)
from lmtasks.config.request import DATA_SOURCES, Request, configure, groups_of, read_yaml
from lmtasks.config.settings import HOW_TO_TOKENISE, DataSettings
from lmtasks.data.corpus import TEXT, Split, load_corpus
from lmtasks.data.examples import examples_of, layout_of, one_example
from lmtasks.data.text.packing import Packed
from lmtasks.errors import InputError
from lmtasks.inference.predictor import recipe_of
from lmtasks.models.architectures import register_architectures
from lmtasks.models.checkpoint import load_model
from lmtasks.models.config import load_config
from lmtasks.models.lm_head import separate_head
from lmtasks.models.processor import load_processor
from lmtasks.registry.catalog import load_catalog
from lmtasks.runs.figures import _measured
from lmtasks.runs.prepare import check_model, fit_length

OTHER_TEXT = {*options_of(DataSettings), "tokenizer_name"} - {"max_eval_samples", *HOW_TO_TOKENISE}
"""Settings with which an evaluation is not of the tokens that a run held out."""


def evaluate(
    run_or_model: str | Path, *, recipe: str | None = None, config: str | Path | None = None, **values: Any
) -> dict[str, float]:
    """The figures of a run or of any model.

    Args:
        run_or_model: run folder, model folder or Hub id.
        recipe: name of the recipe; that of the run, or the one that fits the model, when not given.
        config: YAML file with more values; keyword arguments win over it.
        values: data settings and recipe options; a run's own when not given.

    Returns:
        ``eval_loss``, ``perplexity``, ``bits_per_byte``, ``accuracy``, ``eval_targets``, ``unigram_loss``.

    Raises:
        InputError: as for :func:`run`; also when it is no run and no data is given.
    """
    figures, _ = evaluate_as(run_or_model, recipe=recipe, config=config, **values)
    return figures


def evaluate_as(
    run_or_model: str | Path, *, recipe: str | None = None, config: str | Path | None = None, **values: Any
) -> tuple[dict[str, float], str]:
    """As :func:`evaluate`, with the name of the perplexity that was measured."""
    values = {
        **(read_yaml(config) if config else {}),
        **{name: value for name, value in values.items() if value is not None},
    }
    catalog = load_catalog()
    register_architectures(catalog)
    name = str(run_or_model)
    chosen = recipe_of(name, catalog, recipe, values.get("revision", "main"))
    recorded = read_record(name) or {}
    if values.keys() & {"model", "model_name_or_path"}:
        raise InputError("evaluate takes one model, as its first word", "lmtasks evaluate RUN_OR_MODEL")
    request = configure(chosen, {**values, "model_name_or_path": name}, _recorded(recorded, values))
    typed = configure(chosen, {**values, "model_name_or_path": name}).given
    _refuse_idle(chosen, typed)
    sample = None if request.given & set(DATA_SOURCES) else recorded.get("data", {}).get("sample")
    model_config = load_config(request.model, chosen)
    medium = chosen.medium or TEXT
    processor = load_processor(request, model_config)
    corpus = load_corpus(request.data, medium=medium, sample=sample, evaluation_only=True)
    if corpus.evaluation is None:
        raise InputError("there is nothing to evaluate on", "add --validation_file or --dataset")
    request = fit_length(request, model_config, processor, [])
    chosen.views(processor, request.options)  # their options are checked before the model is loaded
    examples = examples_of(request, "evaluation", corpus.evaluation, processor, model_config)
    examples = examples.head(request.data.max_eval_samples)
    if recorded and not typed & OTHER_TEXT:
        _require_data_of_run(request, name, recorded, corpus.evaluation, examples, processor, model_config)
    example = one_example(request, processor, examples, "evaluation")
    model = load_model(request.model, chosen, model_config, processor, request.seed).model
    check_model(request, processor, model, examples, example, training=False)
    if isinstance(examples, Packed):
        separate_head(model, {name: value for name, value in example.items() if name != "labels"})
    return _measured(model.to(_device()), request, processor, examples), chosen.perplexity_name(request.options)


def _refuse_idle(recipe: Recipe, typed: frozenset[str]) -> None:
    """Refuse what an evaluation would silently leave aside, unless it comes from the run's own record."""
    groups = groups_of(recipe)
    takes = {**groups["options"], **groups["data"], **groups["model"]}
    used = {name for name, option in takes.items() if not option.training_only}
    for name in sorted(typed - used - {"per_device_eval_batch_size", "seed"}):
        alike = {f"eval_{name}", name.replace("train", "eval")} & used
        hint = f"--{alike.pop()} is its like for evaluation" if alike else "lmtasks evaluate --help shows what does"
        raise InputError(f"--{name} means nothing to an evaluation", hint)


def _require_data_of_run(
    request: Request,
    name: str,
    record: Mapping[str, Any],
    split: Split,
    examples: Examples,
    processor: Any,
    config: PretrainedConfig,
) -> None:
    """Refuse other data than the run held out, in whichever way it is to be looked at now.

    Args:
        examples: the split as it is to be looked at.
    """
    then = configure(request.recipe, {"model_name_or_path": name}, _recorded(record, {}))
    alike = layout_of(then, processor) == layout_of(request, processor)
    as_then = examples if alike else examples_of(then, "evaluation", split, processor, config)
    if as_then.head(then.data.max_eval_samples).fingerprint != record["data"]["evaluation"]["fingerprint"]:
        medium = (request.recipe.medium or TEXT).name
        raise InputError(
            f"the {medium} that the run in '{name}' held out is no longer there as it was",
            f"name the {medium} to evaluate on: --validation_file FILE",
        )


def _recorded(record: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a run, and its data unless the user names other data."""
    settings = {} if set(values) & {*DATA_SOURCES, "dataset"} else record.get("settings", {})
    data = {name: value for name, value in settings.items() if name in options_of(DataSettings)}
    return {**record.get("options", {}), **data}


def _device() -> torch.device:
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return accelerator or torch.device("cpu")
