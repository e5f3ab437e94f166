"""Evaluation of a run or of any model, without training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from lmtasks.artifacts.failures import machine_failures
from lmtasks.artifacts.run_folder import read_record, read_whole
from lmtasks.config.request import DATA_SOURCES, OTHER_TEXT, RECIPE, configure, read_yaml, recorded_values, refuse_idle
from lmtasks.config.world import World
from lmtasks.data.examples import examples_of, layout_of
from lmtasks.errors import InputError
from lmtasks.inference.fitting_recipe import recipe_of
from lmtasks.models.architectures import register_architectures
from lmtasks.registry.catalog import load_catalog
from lmtasks.runs.figures import figures_of
from lmtasks.runs.load import Data, load
from lmtasks.runs.meeting import joined


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
        ``eval_loss``, ``perplexity``, ``bits_per_byte``, ``accuracy``, ``eval_targets``, ``unigram_loss``; where
        evaluation sets have names those of the first, and each one's as ``eval_NAME_loss``, ``eval_NAME_perplexity``.

    Raises:
        InputError: as for :func:`run`; also when it is no run and no data is given.
    """
    figures, _ = evaluate_as(run_or_model, recipe=recipe, config=config, **values)
    return figures


@machine_failures()
def evaluate_as(
    run_or_model: str | Path, *, recipe: str | None = None, config: str | Path | None = None, **values: Any
) -> tuple[dict[str, float], str]:
    """As :func:`evaluate`, with the name of the perplexity that was measured."""
    with joined(World.current(), PartialState):
        return _evaluated(run_or_model, recipe, config, values)


def _evaluated(
    run_or_model: str | Path, recipe: str | None, config: str | Path | None, values: dict[str, Any]
) -> tuple[dict[str, float], str]:
    given = {name: value for name, value in values.items() if value is not None}
    values = {**(read_yaml(config) if config else {}), **given}
    named = values.pop(RECIPE, None)
    recipe = recipe or (None if named is None else str(named))
    catalog = load_catalog()
    register_architectures(catalog)
    name = str(run_or_model)
    with read_whole(name):
        chosen = catalog.watched(recipe_of(name, catalog, recipe, values.get("revision", "main")))
        record = read_record(name) or {}
        if values.keys() & {"model", "model_name_or_path"}:
            raise InputError("evaluate takes one model, as its first word", "lmtasks evaluate RUN_OR_MODEL")
        values["model_name_or_path"] = name
        request = configure(chosen, values, recorded_values(record, values))
        typed = configure(chosen, values).given
        refuse_idle(chosen, typed)
        sample = None if request.given & set(DATA_SOURCES) else record.get("data", {}).get("sample")
        check = partial(_require_data_of_run, name, record) if record and not typed & OTHER_TEXT else lambda data: None
        loaded = load(replace(request, sample=sample), training=False, check_data=check)
    request, data = loaded.data.request, loaded.data
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    figures = figures_of(loaded.model.to(device or "cpu"), request, data.processor, data.encoded.evaluations)
    return figures, chosen.perplexity_name(request.options)


def _require_data_of_run(name: str, record: Mapping[str, Any], data: Data) -> None:
    """Refuse other data than the run held out, in whichever way it is to be looked at now."""
    request, recipe = data.request, data.request.recipe
    then = configure(recipe, {"model_name_or_path": name}, recorded_values(record, {}))
    as_then = layout_of(then, data.processor) == layout_of(request, data.processor)
    recorded = record["data"].get("evaluations") or {"": record["data"]["evaluation"]}
    for called, examples in data.encoded.evaluations.items():
        if not as_then and (split := data.corpus.evaluations.get(called)):  # prepared data have one way only
            examples = examples_of(then, f"evaluation {called}".strip(), split, data.processor, data.config)
        sizes = recorded.get(called, {})
        if examples.head(then.data.max_eval_samples).fingerprint != sizes.get("fingerprint"):
            medium = data.encoded.medium
            raise InputError(
                f"the {f'{called} {medium}'.strip()} that the run in '{name}' held out is no longer there as it was",
                f"name the {medium} to evaluate on: --validation_file FILE",
            )
