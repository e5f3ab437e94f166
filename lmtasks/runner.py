"""The runner: executes any recipe, and knows none by name.

prepare (:mod:`lmtasks.preparation`) → train → evaluate → save → verify → card → push.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from transformers import PretrainedConfig

from lmtasks.arguments import training_arguments
from lmtasks.catalog import Catalog, load_catalog
from lmtasks.configure import DATA_SOURCES, Request, configure, groups_of, read_yaml
from lmtasks.corpus import TEXT, Split, load_corpus
from lmtasks.errors import InputError, RunError
from lmtasks.evaluation import evaluate_model
from lmtasks.examples import Examples
from lmtasks.folder import (
    LOG,
    RECORD,
    checkpoint_to_resume,
    clear,
    read_record,
    require_usable,
    reserved,
    save_into,
    write_json,
)
from lmtasks.heads import separate_head
from lmtasks.inference import Predictor, recipe_of
from lmtasks.medium import Material
from lmtasks.models import load_config, load_model, register_architectures
from lmtasks.options import options_of
from lmtasks.packing import Packed
from lmtasks.plan import Plan
from lmtasks.preparation import Prepared, check_model, fit_length, prepare
from lmtasks.processing import load_processor
from lmtasks.progress import is_main_process, say, stage
from lmtasks.publishing import push
from lmtasks.recipe import EVALUATION_SEED, Recipe
from lmtasks.results import new_record, verify, write_results
from lmtasks.settings import HOW_TO_TOKENISE, DataSettings
from lmtasks.texts import examples_of, layout_of, one_example
from lmtasks.training import train

PLAIN = ("loss", "targets")
"""Figures that are called ``eval_...`` in the results, as users of the Trainer know them."""

OTHER_TEXT = {*options_of(DataSettings), "tokenizer_name"} - {"max_eval_samples", *HOW_TO_TOKENISE}
"""Settings with which an evaluation is not of the tokens that a run held out."""


@dataclass(frozen=True)
class Run:
    """A finished run.

    Args:
        output_dir: the run folder.
        metrics: ``eval_loss``, ``perplexity``, ``bits_per_byte``, ``accuracy``, ``train_runtime``, ...
        plan: what was planned.
        perplexity_name: what the perplexity is, in the recipe's words.
        started_small: the recipe's own small model was trained, because nobody named one.
        url: where it was published, if it was.
    """

    recipe: Recipe
    output_dir: Path
    metrics: dict[str, float]
    plan: Plan
    perplexity_name: str
    started_small: bool
    url: str | None = None

    def predict(self, texts: str | list[str], **arguments: Any) -> Any:
        """What the pipeline answers to a text, or to several; see :func:`lmtasks.predict`."""
        return self._predictor.predict(texts, **arguments)

    @cached_property
    def _predictor(self) -> Predictor:
        return Predictor(str(self.output_dir), self.recipe)


def run(recipe: str | Recipe, *, config: str | Path | None = None, **values: Any) -> Run | Plan:
    """Train a model as the recipe says.

    Args:
        recipe: name of an installed recipe, or a recipe.
        config: YAML file with more values; keyword arguments win over it.
        values: everything that the command line takes, under the same names, and ``train_dataset`` and
            ``eval_dataset`` for data in memory.

    Returns:
        the finished run; with ``dry_run=True`` the plan.

    Raises:
        InputError: the request cannot be carried out; nothing was written.
        RunError: it was carried out and failed.
        Interrupted: a signal stopped it; a checkpoint was saved.
    """
    catalog = load_catalog()
    chosen = recipe if isinstance(recipe, Recipe) else catalog.recipe(recipe)
    request = configure(chosen, values, read_yaml(config) if config else None)
    register_architectures(catalog)
    prepared = prepare(request)
    if request.output.dry_run:
        return prepared.plan
    for line in prepared.plan.lines():
        say(line)
    with _full_disk_explained():
        return execute(prepared, catalog)


@contextmanager
def _full_disk_explained() -> Iterator[None]:
    """A full disk is nobody's bug.

    Raises:
        RunError: instead of the error of whichever library wrote last.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise RunError(f"the disk is full: {error.strerror}", "free some space, then resume or start again") from error


def execute(prepared: Prepared, catalog: Catalog) -> Run:
    """Train, evaluate, save, verify and publish what was prepared, in a folder that no other run has meanwhile.

    Raises:
        InputError: another run has the folder, or had it since it was looked at.
    """
    if not is_main_process():
        return _execute(prepared, catalog)
    request, folder = prepared.request, prepared.folder
    overwrite, resume = request.output.overwrite_output_dir, request.training.get("resume_from_checkpoint")
    with reserved(folder):
        require_usable(folder, prepared.asked, overwrite=overwrite, resume=resume)
        if overwrite:
            clear(folder)
        return _execute(prepared, catalog)


def _execute(prepared: Prepared, catalog: Catalog) -> Run:
    request, folder = prepared.request, prepared.folder
    resume = request.training.get("resume_from_checkpoint")
    record = new_record(prepared, catalog)
    if is_main_process():
        write_json(folder / RECORD, record)
    arguments = training_arguments(request.training, folder, prepared.plan.steps)
    before_step = request.recipe.before_step
    trainer, train_metrics = train(
        prepared.model,
        request.recipe,
        prepared.processor,
        arguments,
        Examples(prepared.texts.train, request.seed),
        Examples(prepared.texts.evaluation, EVALUATION_SEED),
        (prepared.collate(training=True), prepared.collate(training=False)),
        folder / LOG,
        checkpoint_to_resume(folder, resume) if resume else None,
        *([partial(before_step, prepared.model, request.options)] if before_step else []),
    )
    # Without the wrapper that computes in bfloat16: what is measured is what will be loaded.
    model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    eval_metrics = _measured(model, request, prepared.processor, prepared.texts.evaluation)
    if trainer.is_world_process_zero():
        record["files"] = save_into(folder, model, prepared.processor)
        verify(model, prepared)
        write_results(folder, record, trainer, train_metrics, eval_metrics)
    trainer.accelerator.wait_for_everyone()
    url = None
    if request.output.push_to_hub and trainer.is_world_process_zero():
        url = push(folder, request.output.hub_model_id or folder.name, private=request.output.hub_private_repo)
    return Run(
        request.recipe,
        folder,
        {**train_metrics, **eval_metrics},
        prepared.plan,
        request.recipe.perplexity_name(request.options),
        request.starts_small,
        url,
    )


def _measured(model: torch.nn.Module, request: Request, processor: Any, material: Material) -> dict[str, float]:
    """All figures of a model on a split, under the names that go into files."""

    def figures(what: str, seen: Material) -> dict[str, float]:
        with stage(what, len(seen), "examples") as progress:
            return evaluate_model(
                model,
                request.recipe,
                Examples(seen, EVALUATION_SEED),
                request.recipe.collator(processor, request.options, False),
                int(request.training["per_device_eval_batch_size"]),
                progress.update,
            )

    named = _named(figures("evaluating", material))
    if not isinstance(material, Packed):
        return named
    for view, blocks in request.recipe.views(processor, request.options).items():
        seen = figures(f"evaluating, {view}", material.recut(blocks))
        seen.pop("unigram_loss", None)  # of the text, not of the way of looking at it
        named |= {f"{view}_{name}": value for name, value in seen.items()}
        named[f"{view}_log_likelihood"] = -seen["loss"] * seen["targets"]
    return named


def _named(figures: Mapping[str, float]) -> dict[str, float]:
    """The figures under the names that go into files."""
    return {f"eval_{name}" if name in PLAIN else name: value for name, value in figures.items()}


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
    material = examples_of(request, "evaluation", corpus.evaluation, processor, model_config)
    material = material.head(request.data.max_eval_samples)
    if recorded and not typed & OTHER_TEXT:
        _require_data_of_run(request, name, recorded, corpus.evaluation, material, processor, model_config)
    example = one_example(request, processor, material, "evaluation")
    model = load_model(request.model, chosen, model_config, processor, request.seed).model
    check_model(request, processor, model, material, example, training=False)
    if isinstance(material, Packed):
        separate_head(model, {name: value for name, value in example.items() if name != "labels"})
    return _measured(model.to(_device()), request, processor, material), chosen.perplexity_name(request.options)


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
    material: Material,
    processor: Any,
    config: PretrainedConfig,
) -> None:
    """Refuse other data than the run held out, in whichever way it is to be looked at now.

    Args:
        material: the split as it is to be looked at.
    """
    then = configure(request.recipe, {"model_name_or_path": name}, _recorded(record, {}))
    alike = layout_of(then, processor) == layout_of(request, processor)
    as_then = material if alike else examples_of(then, "evaluation", split, processor, config)
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
