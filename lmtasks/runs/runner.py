"""The runner: executes any recipe, and knows none by name.

prepare (:mod:`lmtasks.runs.prepare`) → train → evaluate → save → verify → card → push.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from lmtasks.api import EVALUATION_SEED, Recipe
from lmtasks.artifacts.publish import push
from lmtasks.artifacts.run_folder import (
    LOG,
    RECORD,
    checkpoint_to_resume,
    clear,
    require_usable,
    reserved,
    save_into,
    write_json,
)
from lmtasks.config.request import configure, read_yaml
from lmtasks.config.training_arguments import training_arguments
from lmtasks.data.dataset import ExampleDataset
from lmtasks.errors import RunError
from lmtasks.inference.predictor import Predictor
from lmtasks.models.architectures import register_architectures
from lmtasks.progress import is_main_process, say
from lmtasks.registry.catalog import Catalog, load_catalog
from lmtasks.runs.figures import _measured
from lmtasks.runs.plan import Plan
from lmtasks.runs.prepare import Prepared, prepare
from lmtasks.runs.verify import new_record, verify, write_results
from lmtasks.training.trainer import train


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
        ExampleDataset(prepared.texts.train, request.seed),
        ExampleDataset(prepared.texts.evaluation, EVALUATION_SEED),
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
