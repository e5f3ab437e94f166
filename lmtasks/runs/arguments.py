"""Training arguments that nobody has to give, because the model and its figures decide them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from transformers import PreTrainedModel

from lmtasks.api import EVALUATION_SEED
from lmtasks.config.engines import WATCHING, honours
from lmtasks.data.dataset import ExampleDataset
from lmtasks.data.examples import one_example
from lmtasks.errors import InputError, nearest
from lmtasks.runs.load import Data, Loaded
from lmtasks.training.evaluation import figures_to_come
from lmtasks.training.from_scratch import CHOSEN, learning_from_scratch
from lmtasks.training.precision import with_precision


def fitted(loaded: Loaded, batch: int) -> Loaded:
    """What was loaded, with the training arguments that suit it, and notes on what was chosen for the user.

    Args:
        batch: examples of one optimiser step.

    Raises:
        InputError: see :func:`fitted_arguments`.
    """
    data, model, request = loaded.data, loaded.model, loaded.data.request
    training, notes = dict(request.training), list[str]()
    if request.starts_small:
        training, notes = _within_epochs(data, batch)
    elif not request.model.model_name_or_path:
        settled = {*request.given, *request.preset, *(name for name in CHOSEN if not honours(request.engine, name))}
        training, notes = learning_from_scratch(request.training, settled, model)
    data = replace(data, request=replace(request, training=training))
    request = replace(request, training=fitted_arguments(data, model))
    return replace(loaded, data=replace(data, request=request), notes=(*loaded.notes, *notes))


def _within_epochs(data: Data, batch: int) -> tuple[dict[str, Any], list[str]]:
    """The training arguments of a starter, whose steps go over a short text no more often than it says."""
    request, train = data.request, data.encoded.train
    training, starter = dict(request.training), request.recipe.starter
    assert starter is not None and train is not None  # a run that starts small has both
    if starter.epochs is None or {"max_steps", "num_train_epochs"} & {*request.given, *request.preset}:
        return training, []
    most = math.ceil(starter.epochs * len(train) / batch)
    if training["max_steps"] <= most:
        return training, []
    note = f"{most:,} steps, {starter.epochs:g} passes over a short text: in more it is learned by heart"
    return {**training, "max_steps": most}, [note]


def fitted_arguments(data: Data, model: PreTrainedModel) -> dict[str, Any]:
    """The training arguments, by name, with the precision and with which of two models is the better.

    Raises:
        InputError: the better model is to be told by a figure that evaluation during training does not have, or
            against what is known of the figure, or nobody says which is better.
    """
    training = with_precision(data.request.training, model)
    watching = training.get("lr_scheduler_type") in WATCHING
    patient = data.request.stopping.early_stopping_patience is not None
    wanted = training.get("metric_for_best_model")
    if wanted is None and not watching and not patient and not training.get("load_best_model_at_end"):
        return training
    evaluates = training.get("eval_strategy", "no") != "no"
    if patient and not evaluates:
        raise InputError(
            "--early_stopping_patience: nothing is evaluated during training", "add --eval_strategy steps or epoch"
        )
    if wanted is not None and not evaluates:
        raise InputError(
            f"--metric_for_best_model {wanted}: nothing is evaluated during training",
            "add --eval_strategy steps or epoch, or leave --metric_for_best_model out",
        )
    greater = _greater_is_better(
        (wanted or "loss").removeprefix("eval_"), training.get("greater_is_better"), _figures(data, model)
    )
    mode = {"lr_scheduler_kwargs": _with_mode(training.get("lr_scheduler_kwargs"), greater)} if watching else {}
    metric = {"metric_for_best_model": wanted or "loss"} if patient else {}
    return {**training, **metric, "greater_is_better": greater, **mode}


def _figures(data: Data, model: PreTrainedModel) -> dict[str, bool | None]:
    """The figures of evaluation during training, as ``--metric_for_best_model`` names them; see figures_to_come."""
    known: dict[str, bool | None] = {}
    for name, examples in data.encoded.evaluations.items():
        example = one_example(data.request, data.processor, examples, f"held-out {name}".strip())
        dataset = ExampleDataset(examples, EVALUATION_SEED)
        own = figures_to_come(model, data.request.bound, dataset, example)
        # The first set's are there under plain names, too.
        known |= {} if known else own
        known |= {f"{name}_{figure}": better for figure, better in own.items()} if name else {}
    return known


def _greater_is_better(wanted: str, asked: bool | None, figures: Mapping[str, bool | None]) -> bool:
    if wanted not in figures:
        raise InputError(
            f"--metric_for_best_model {wanted} is no figure of the evaluation during training"
            f"{nearest(wanted, figures)}",
            f"one of {', '.join(figures)}",
        )
    known = figures[wanted]
    if known is None and asked is None:
        raise InputError(
            f"nobody says whether more of --metric_for_best_model {wanted} is better",
            "add --greater_is_better true or false",
        )
    if known is not None and asked not in (None, known):
        raise InputError(
            f"--greater_is_better {str(asked).lower()} contradicts --metric_for_best_model {wanted}:"
            f" {'more' if known else 'less'} of it is better",
            "leave --greater_is_better out",
        )
    return bool(known if asked is None else asked)


def _with_mode(given: Any, greater: bool) -> Any:
    """The arguments of the schedule, with the direction; what cannot be read is for the Trainer to refuse."""
    mode = "max" if greater else "min"
    if isinstance(given, str):
        with suppress(ValueError):
            given = json.loads(given)
    if given is not None and not isinstance(given, dict):
        return given
    if (asked := (given or {}).get("mode", mode)) != mode:
        raise InputError(
            f"--lr_scheduler_kwargs: mode {asked!r} contradicts the metric, whose mode is {mode!r}", "leave mode out"
        )
    return {**(given or {}), "mode": mode}
