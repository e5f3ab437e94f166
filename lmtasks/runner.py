"""The runner: executes any recipe, and knows none by name.

preflight → data → tokenizer → blocks → model → probes (:func:`prepare`, which writes nothing), then
train → evaluate → save → verify → card → push (:func:`run`).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lmtasks.arguments import training_arguments
from lmtasks.card import write_card
from lmtasks.catalog import Catalog, load_catalog
from lmtasks.configure import DATA_SOURCES, Request, as_record, configure, groups_of, read_yaml
from lmtasks.corpus import Corpus, Split, load_corpus
from lmtasks.errors import InputError, RunError
from lmtasks.evaluation import Collate, evaluate_model
from lmtasks.examples import EVALUATION_SEED, Examples
from lmtasks.folder import (
    LOG,
    RECORD,
    checkpoint_to_resume,
    choose_folder,
    clear,
    read_record,
    require_usable,
    save_into,
    write_json,
)
from lmtasks.inference import Predictor, recipe_of
from lmtasks.models import fit_to_tokenizer, load_config, load_model, register_architectures, usable_length
from lmtasks.packing import Blocks, Packed, pack
from lmtasks.plan import Plan, counts, peak_memory, total_steps
from lmtasks.probes import probe
from lmtasks.progress import say, stage
from lmtasks.publishing import check_can_push, push
from lmtasks.recipe import BlockOptions, Recipe
from lmtasks.references import resolve
from lmtasks.tokenization import load_tokenizer, require_tokens, train_tokenizer
from lmtasks.training import train

PLAIN = ("loss", "targets")
"""Figures that are called ``eval_...`` in the results, as users of the Trainer know them."""


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
        return Predictor(str(self.output_dir), self.recipe).predict(texts, **arguments)


@dataclass(frozen=True)
class Prepared:
    """Everything that a run needs, checked; nothing has been written."""

    request: Request
    folder: Path
    tokenizer: PreTrainedTokenizerBase
    model: PreTrainedModel
    train: Packed
    evaluation: Packed
    plan: Plan

    def collate(self, *, training: bool) -> Collate:
        """The recipe's collator."""
        return self.request.recipe.collator(self.tokenizer, self.request.options, training)


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
    return execute(prepared, catalog)


def prepare(request: Request) -> Prepared:
    """Load and check everything that the run needs.

    Raises:
        InputError: something does not fit; nothing was written.
    """
    folder = choose_folder(request.recipe.name, request.output.output_dir)
    require_usable(
        folder,
        as_record(request),
        overwrite=request.output.overwrite_output_dir,
        resume=request.training.get("resume_from_checkpoint"),
    )
    if request.output.push_to_hub:
        check_can_push(request.output.hub_model_id or folder.name)
    config = load_config(request.model, request.recipe)
    tokenizer = None if request.model.train_tokenizer else _named_tokenizer(request)
    corpus = load_corpus(request.data, sample=request.sample)
    if corpus.train is None or corpus.evaluation is None:
        raise InputError("a run needs training data", "add --train_file or --dataset")
    if tokenizer is None:
        tokenizer = _trained_tokenizer(request, corpus.train)
    if not request.model.model_name_or_path:
        config = fit_to_tokenizer(config, tokenizer)
    notes: list[str] = []
    request = _fit_length(request, usable_length(config, request.recipe, tokenizer), notes)
    blocks = request.recipe.preprocess(tokenizer, request.options)
    train_blocks = _packed("training", corpus.train, tokenizer, blocks, request).head(request.data.max_train_samples)
    eval_blocks = _packed("held-out", corpus.evaluation, tokenizer, blocks, request).head(request.data.max_eval_samples)
    loaded = load_model(request.model, request.recipe, config, tokenizer, request.seed)
    if loaded.new_weights:
        notes.append(f"{len(loaded.new_weights)} weights are new: {', '.join(loaded.new_weights[:3])}")
    if loaded.grown:
        notes.append(f"embeddings grown by {loaded.grown} rows for the tokenizer's tokens")
    if request.starts_small:
        notes.append("no --model given: a small one from scratch, to look around with")
    example = _one_example(request, tokenizer, eval_blocks)
    probe(loaded.model, request.recipe, example)
    plan = _plan(request, folder, corpus, tokenizer, loaded.model, train_blocks, eval_blocks, notes)
    return Prepared(request, folder, tokenizer, loaded.model, train_blocks, eval_blocks, plan)


def _named_tokenizer(request: Request) -> PreTrainedTokenizerBase:
    name = request.model.tokenizer_name or request.model.model_name_or_path
    return load_tokenizer(str(name), request.model, request.recipe)


def _trained_tokenizer(request: Request, split: Split) -> PreTrainedTokenizerBase:
    spec = request.recipe.tokenizer
    if spec is None:
        raise InputError(f"{request.recipe.name} says nothing about training a tokenizer", "give --tokenizer_name")
    say(f"training a tokenizer of {request.model.train_tokenizer:,} tokens")
    tokenizer = train_tokenizer(split.texts(), int(request.model.train_tokenizer or 0), spec)
    require_tokens(tokenizer, "the trained tokenizer", request.recipe)
    return tokenizer


def _fit_length(request: Request, usable: int | None, notes: list[str]) -> Request:
    """Refuse a block that the user wants longer than the model can take; shorten a default one."""
    options = request.options
    if not isinstance(options, BlockOptions) or usable is None or options.block_size <= usable:
        return request
    if "block_size" in request.given:
        raise InputError(
            f"--block_size {options.block_size} is more than the model can take: {usable} tokens",
            f"--block_size {usable} or less",
        )
    notes.append(f"block_size {usable}: the model takes no more")
    return replace(request, options=replace(options, block_size=usable))


def _packed(name: str, split: Split, tokenizer: PreTrainedTokenizerBase, blocks: Blocks, request: Request) -> Packed:
    with stage(f"tokenising the {name} text", len(split), "rows") as progress:
        packed = pack(split, tokenizer, blocks, progress.update)
    if not len(packed.blocks):
        raise InputError(
            f"the {name} text has {packed.tokens:,} tokens, less than one block of {blocks.size}",
            "lower --block_size, or give more text",
        )
    if int(packed.blocks.max()) >= len(tokenizer):
        raise InputError("the tokenizer gives ids beyond its own vocabulary", "give another --tokenizer_name")
    return packed


def _one_example(request: Request, tokenizer: PreTrainedTokenizerBase, packed: Packed) -> dict[str, Any]:
    """A batch of one block, as the recipe collates it for evaluation."""
    collate = request.recipe.collator(tokenizer, request.options, False)
    return collate([Examples(packed, EVALUATION_SEED)[0]])


def _plan(
    request: Request,
    folder: Path,
    corpus: Corpus,
    tokenizer: PreTrainedTokenizerBase,
    model: PreTrainedModel,
    train_blocks: Packed,
    eval_blocks: Packed,
    notes: list[str],
) -> Plan:
    arguments = training_arguments(request.training, folder, 0)
    steps = total_steps(len(train_blocks.blocks), arguments)
    batch = arguments.train_batch_size * arguments.gradient_accumulation_steps * arguments.world_size
    size = train_blocks.blocks.shape[1]
    origin = request.model.model_name_or_path or f"new {model.config.model_type}"
    return Plan(
        recipe=f"{request.recipe.name}: {request.recipe.summary}",
        data=corpus.source,
        train=counts(train_blocks),
        evaluation=counts(eval_blocks),
        block_size=size,
        model=origin,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        vocabulary=len(tokenizer),
        epochs=round(steps * batch / len(train_blocks.blocks), 2),
        steps=steps,
        batch=batch,
        learning_rate=arguments.learning_rate,
        precision="bfloat16 where safe" if arguments.bf16 else "float16 where safe" if arguments.fp16 else "float32",
        peak_memory=peak_memory(
            model, request.recipe, _one_example(request, tokenizer, eval_blocks), arguments.train_batch_size
        ),
        output_dir=str(folder),
        notes=tuple(notes),
        writes=(str(folder), *([request.output.hub_model_id or folder.name] if request.output.push_to_hub else ())),
    )


def execute(prepared: Prepared, catalog: Catalog) -> Run:
    """Train, evaluate, save, verify and publish what was prepared."""
    request, folder = prepared.request, prepared.folder
    resume = request.training.get("resume_from_checkpoint")
    if request.output.overwrite_output_dir:
        clear(folder)
    folder.mkdir(parents=True, exist_ok=True)
    record = _record(prepared, catalog)
    write_json(folder / RECORD, record)
    arguments = training_arguments(request.training, folder, prepared.plan.steps)
    trainer, train_metrics = train(
        prepared.model,
        request.recipe,
        prepared.tokenizer,
        arguments,
        Examples(prepared.train, request.seed),
        Examples(prepared.evaluation, EVALUATION_SEED),
        (prepared.collate(training=True), prepared.collate(training=False)),
        folder / LOG,
        checkpoint_to_resume(folder, resume) if resume else None,
    )
    # Without the wrapper that computes in bfloat16: what is measured is what will be loaded.
    model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    eval_metrics = _evaluated(model, request.recipe, prepared)
    if trainer.is_world_process_zero():
        record["files"] = save_into(folder, model, prepared.tokenizer)
        _verify(model, prepared)
        _write_results(folder, record, trainer, train_metrics, eval_metrics)
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


def _evaluated(model: torch.nn.Module, recipe: Recipe, prepared: Prepared) -> dict[str, float]:
    arguments = prepared.request.training
    with stage("evaluating", len(prepared.evaluation.blocks), "blocks") as progress:
        figures = evaluate_model(
            model,
            recipe,
            Examples(prepared.evaluation, EVALUATION_SEED),
            prepared.collate(training=False),
            int(arguments["per_device_eval_batch_size"]),
            progress.update,
        )
    return _named(figures)


def _named(figures: Mapping[str, float]) -> dict[str, float]:
    """The figures under the names that go into files."""
    return {f"eval_{name}" if name in PLAIN else name: value for name, value in figures.items()}


def _record(prepared: Prepared, catalog: Catalog) -> dict[str, Any]:
    """``run.json`` as it stands before training."""
    request, plan = prepared.request, prepared.plan
    recipe = request.recipe
    owned = recipe.name in catalog.recipes and catalog.recipes[recipe.name] is recipe
    starter = recipe.starter
    return {
        "status": "running",
        "recipe": recipe.name,
        "owner": catalog.owner(recipe.name).name if owned else "unknown",
        "summary": recipe.summary,
        "pipeline": recipe.pipeline,
        "model_class": recipe.model_class,
        "perplexity_label": recipe.perplexity_name(request.options),
        "base_model": request.model.model_name_or_path,
        "model_type": prepared.model.config.model_type,
        "parameters": plan.parameters,
        "data": {
            "source": plan.data,
            "sample": request.sample,
            "dataset_name": request.data.dataset_name,
            "train": plan.train,
            "evaluation": plan.evaluation,
        },
        "options": vars(request.options),
        "training": dict(request.training),
        "seeds": {"seed": request.seed, "split": request.data.split_seed, "evaluation": EVALUATION_SEED},
        "versions": {
            "lmtasks": metadata.version("lmtasks"),
            "transformers": transformers.__version__,
            "torch": torch.__version__,
            "datasets": metadata.version("datasets"),
        },
        "example": starter.texts[0] if starter and starter.texts else None,
        "request": as_record(request),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _verify(model: PreTrainedModel, prepared: Prepared) -> None:
    """Load the saved model and compare one batch: what was saved must be what was trained.

    Raises:
        RunError: it is not.
    """
    request = prepared.request
    batch = _one_example(request, prepared.tokenizer, prepared.evaluation)
    saved = resolve(request.recipe.model_class).from_pretrained(
        prepared.folder, trust_remote_code=request.model.trust_remote_code, dtype=torch.float32
    )
    was_training = model.training
    with torch.no_grad():
        device = next(model.parameters()).device
        batch = {name: value.to(device) for name, value in batch.items()}
        ours = request.recipe.loss(model.eval(), batch)
        theirs = request.recipe.loss(saved.to(device).eval(), batch)
    model.train(was_training)
    # The same weights on the same device; a wrong one moves the loss of a model that knows little by very little.
    if not torch.isclose(ours[0].cpu().double(), theirs[0].cpu().double(), rtol=1e-5):
        raise RunError(
            f"the model saved in '{prepared.folder}' is not the one that was trained: loss {float(theirs[0]):.4f}"
            f" instead of {float(ours[0]):.4f} on one block",
            "do not use it; the last checkpoint in checkpoints/ may be good. Please report this",
        )


def _write_results(
    folder: Path,
    record: dict[str, Any],
    trainer: Any,
    train_metrics: Mapping[str, float],
    eval_metrics: Mapping[str, float],
) -> None:
    write_json(folder / "train_results.json", train_metrics)
    write_json(folder / "eval_results.json", eval_metrics)
    write_json(folder / "all_results.json", {**train_metrics, **eval_metrics})
    trainer.state.save_to_json(str(folder / "trainer_state.json"))
    # The status is written last: a folder that says "done" is complete.
    record |= {"status": "done", "metrics": {**train_metrics, **eval_metrics}}
    write_card(folder, record)
    write_json(folder / RECORD, record)


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
    values = {**(read_yaml(config) if config else {}), **values}
    catalog = load_catalog()
    register_architectures(catalog)
    name = str(run_or_model)
    chosen = recipe_of(name, catalog, recipe)
    recorded = read_record(name) or {}
    request = configure(chosen, {**values, "model_name_or_path": name}, _recorded(recorded, values))
    _refuse_idle(request)
    sample = None if request.given & set(DATA_SOURCES) else recorded.get("data", {}).get("sample")
    config = load_config(request.model, chosen)
    tokenizer = _named_tokenizer(request)
    corpus = load_corpus(request.data, sample=sample, evaluation_only=True)
    if corpus.evaluation is None:
        raise InputError("there is nothing to evaluate on", "add --validation_file or --dataset")
    request = _fit_length(request, usable_length(config, chosen, tokenizer), [])
    blocks = chosen.preprocess(tokenizer, request.options)
    packed = _packed("evaluation", corpus.evaluation, tokenizer, blocks, request).head(request.data.max_eval_samples)
    model = load_model(request.model, chosen, config, tokenizer, request.seed).model
    probe(model, chosen, _one_example(request, tokenizer, packed))
    with stage("evaluating", len(packed.blocks), "blocks") as progress:
        figures = evaluate_model(
            model.to(_device()),
            chosen,
            Examples(packed, EVALUATION_SEED),
            chosen.collator(tokenizer, request.options, False),
            int(request.training["per_device_eval_batch_size"]),
            progress.update,
        )
    return _named(figures)


def _refuse_idle(request: Request) -> None:
    """Refuse what an evaluation would silently leave aside."""
    groups = groups_of(request.recipe)
    used = {*groups["options"], *groups["data"], *groups["model"], "per_device_eval_batch_size", "seed"}
    for name in sorted(request.given - used):
        raise InputError(f"--{name} means nothing to an evaluation", "lmtasks evaluate --help shows what does")


def _recorded(record: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a run, and its data unless the user names other data."""
    request = record.get("request", {})
    data = {} if set(values) & {*DATA_SOURCES, "dataset"} else request.get("data", {})
    return {**request.get("options", {}), **{name: value for name, value in data.items() if value is not None}}


def _device() -> torch.device:
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return accelerator or torch.device("cpu")
