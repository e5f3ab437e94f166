"""Preparation: everything that a run needs, loaded and checked before anything is written."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from lmtasks.api import EVALUATION_SEED, Batch, BlockOptions, Example, Examples
from lmtasks.artifacts.publish import check_can_push
from lmtasks.artifacts.run_folder import choose_folder, read_record, require_free, require_usable
from lmtasks.config.request import Request, fingerprint
from lmtasks.config.training_arguments import training_arguments
from lmtasks.data.corpus import TEXT, Split, load_corpus
from lmtasks.data.dataset import ExampleDataset
from lmtasks.data.examples import EncodedCorpus, encode_corpus, one_example
from lmtasks.data.text.packing import Packed
from lmtasks.errors import InputError
from lmtasks.models.checkpoint import Loaded, load_model
from lmtasks.models.config import fit_to_tokenizer, load_config, usable_length
from lmtasks.models.document_mask import isolate, probe_isolation
from lmtasks.models.lm_head import EVERYWHERE, separate_head
from lmtasks.models.probes import probe, probe_first_loss, probe_padding
from lmtasks.models.processor import load_processor, vocabulary
from lmtasks.models.tokenizer import add_tokens, require_tokens, train_tokenizer
from lmtasks.progress import is_main_process, say
from lmtasks.runs.plan import Plan, peak_memory, total_steps
from lmtasks.training.evaluation import Collate
from lmtasks.training.precision import with_precision
from lmtasks.training.rehearsal import rehearse


@dataclass(frozen=True)
class Prepared:
    """Everything that a run needs, checked; nothing has been written.

    Args:
        request: with what had to be fitted to the model.
        asked: fingerprint of the request as it came.
        processor: the processing class; for text a tokenizer.
    """

    request: Request
    asked: str
    folder: Path
    processor: Any
    model: PreTrainedModel
    texts: EncodedCorpus
    plan: Plan

    def collate(self, *, training: bool) -> Collate:
        """The recipe's collator."""
        return self.request.recipe.collator(self.processor, self.request.options, training)


def prepare(request: Request) -> Prepared:
    """Load and check everything that the run needs.

    Raises:
        InputError: something does not fit; nothing was written.
    """
    asked = fingerprint(request)
    folder = _folder(request, asked)
    if request.output.push_to_hub:
        check_can_push(request.output.hub_model_id or folder.name)
    config = load_config(request.model, request.recipe)
    processor = None if request.model.train_tokenizer else load_processor(request, config)
    corpus = load_corpus(request.data, medium=request.recipe.medium or TEXT, sample=request.sample)
    if corpus.train is None or corpus.evaluation is None:
        raise InputError("a run needs training data", "add --train_file or --dataset")
    if processor is None:
        processor = _trained_tokenizer(request, corpus.train)
    if not request.model.model_name_or_path:
        config = fit_to_tokenizer(config, processor)
    notes: list[str] = []
    request = fit_length(request, config, processor, notes)
    texts = encode_corpus(request, corpus, processor, config)
    example = one_example(request, processor, texts.evaluation, "held-out")
    loaded = load_model(request.model, request.recipe, config, processor, request.seed)
    notes += [*texts.notes(), *_model_notes(loaded)]
    _require_same_data(request, folder, texts)
    check_model(request, processor, loaded.model, texts.evaluation, example)
    if not request.model.model_name_or_path:
        first, uniform = probe_first_loss(loaded.model, request.recipe, example)
        guess = "" if uniform is None else f", a uniform guess costs {uniform:.2f}"
        notes.append(f"first loss {first:.2f} nats{guess}")
    request = replace(request, training=with_precision(request.training, loaded.model))
    notes += quicken(request, loaded.model, texts.evaluation, example)
    if request.starts_small:
        notes.append("no --model given: a small one from scratch, to look around with")
    _require_space(folder, loaded.model)
    plan = _plan(request, folder, texts, processor, loaded.model, example, notes)
    prepared = Prepared(request, asked, folder, processor, loaded.model, texts, plan)
    arguments = training_arguments(request.training, folder, plan.steps)
    examples = ExampleDataset(texts.train, request.seed)
    rehearse(loaded.model, request.recipe, arguments, examples, prepared.collate(training=True), plan.steps)
    return prepared


def _folder(request: Request, asked: str) -> Path:
    """The folder of the run. One process chooses for all: another would see what others have made meanwhile."""
    folder = choose_folder(request.recipe.name, request.output.output_dir)
    if is_main_process():
        require_free(folder)
        require_usable(
            folder,
            asked,
            overwrite=request.output.overwrite_output_dir,
            resume=request.training.get("resume_from_checkpoint"),
        )
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        training_arguments(request.training, folder, 0)  # from then on the processes can talk
        [folder] = broadcast_object_list([folder])
    return folder


def _model_notes(loaded: Loaded) -> Iterator[str]:
    """What is worth knowing about the model."""
    if loaded.new_weights:
        yield f"{len(loaded.new_weights)} weights are new: {', '.join(loaded.new_weights[:3])}"
    if loaded.unused:
        yield f"{len(loaded.unused)} weights of the checkpoint have no use here: {', '.join(loaded.unused[:3])}"
    if loaded.grown:
        yield f"embeddings grown by {loaded.grown} rows for the tokenizer's tokens"


def _require_same_data(request: Request, folder: Path, texts: EncodedCorpus) -> None:
    """Refuse to resume on other data: the checkpoint knows how far it got in the old."""
    record = read_record(folder) if request.training.get("resume_from_checkpoint") else None
    if record and record["data"]["train"]["fingerprint"] != texts.train.fingerprint:
        raise InputError(
            f"the training {texts.medium} is not the one that the run in '{folder}' began with",
            f"bring the old {texts.medium} back, or start again with --overwrite_output_dir",
        )


def _require_space(folder: Path, model: PreTrainedModel) -> None:
    """Refuse a disk on which not even one checkpoint and the model would fit.

    A checkpoint has the weights and the two moments of Adam, the run once more the weights.
    """
    needed = 4 * sum(parameter.nbytes for parameter in model.parameters())
    place = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(place).free
    if free < needed:
        raise InputError(
            f"the disk of output_dir '{folder}' has {free / 2**20:,.0f} MiB free, a run takes {needed / 2**20:,.0f}",
            "free some space, or choose another --output_dir",
        )


def _trained_tokenizer(request: Request, split: Split) -> PreTrainedTokenizerBase:
    spec = request.recipe.tokenizer
    if spec is None:
        raise InputError(f"{request.recipe.name} says nothing about training a tokenizer", "give --tokenizer_name")
    say(f"training a tokenizer of {request.model.train_tokenizer:,} tokens")
    tokenizer = train_tokenizer(split.texts(), int(request.model.train_tokenizer or 0), spec)
    require_tokens(tokenizer, "the trained tokenizer", request.recipe)
    add_tokens(tokenizer, request.recipe)
    return tokenizer


def fit_length(request: Request, config: PretrainedConfig, processor: Any, notes: list[str]) -> Request:
    """Refuse a block that the user wants longer than the model can take; shorten a default one."""
    options = request.options
    if not isinstance(options, BlockOptions):
        return request
    usable = usable_length(config, request.recipe, processor)
    if usable is None or options.block_size <= usable:
        return request
    if "block_size" in request.given:
        raise InputError(
            f"--block_size {options.block_size} is more than the model can take: {usable} tokens",
            f"--block_size {usable} or less",
        )
    notes.append(f"block_size {usable}: the model takes no more")
    return replace(request, options=replace(options, block_size=usable))


def quicken(request: Request, model: PreTrainedModel, examples: Examples, example: Batch) -> Iterator[str]:
    """Let the model run its head on its own where that is possible; a note where it is not.

    Not for float16: its gradients are made before the Trainer's scaling could keep them from vanishing.
    Nor for what takes the model apart, to compile it or to spread it over devices.
    """
    parted = ("fp16", "torch_compile", "fsdp", "deepspeed")
    if any(request.training.get(name) for name in parted) or not isinstance(examples, Packed):
        return  # what is no text is projected to no vocabulary
    inputs = {name: value for name, value in example.items() if name != "labels"}
    if reason := separate_head(model, inputs):
        yield f"{EVERYWHERE}: {reason}"


def check_model(
    request: Request,
    processor: Any,
    model: PreTrainedModel,
    examples: Examples,
    example: Batch,
    *,
    training: bool = True,
) -> None:
    """Measure what the model can take and what it sees, and teach it to isolate documents if asked.

    Args:
        training: whether it is to be trained, see :func:`lmtasks.models.probes.probe`.

    Raises:
        InputError: the model cannot do what the recipe needs.
    """
    recipe = request.recipe
    probe(model, recipe, example, training=training)
    if not isinstance(examples, Packed) or examples.blocks.line_by_line:
        chosen = _of_different_lengths(ExampleDataset(examples, EVALUATION_SEED))
        collate = recipe.collator(processor, request.options, False)
        probe_padding(model, recipe, [collate([one]) for one in chosen], collate(chosen))
    elif examples.blocks.isolate:
        isolate(model, recipe)
        probe_isolation(model, recipe, example)


def _of_different_lengths(dataset: ExampleDataset) -> list[Example]:
    """The longest and the shortest of the first examples; where lengths are known, of all."""
    if not isinstance(dataset.examples, Packed):
        order = list(dataset.examples.longest_first())
        return [dataset[order[0]], dataset[order[-1]]]
    some = sorted((dataset[number] for number in range(min(len(dataset), 64))), key=lambda one: len(one["input_ids"]))
    return [some[-1], some[0]]


def _plan(
    request: Request,
    folder: Path,
    texts: EncodedCorpus,
    processor: Any,
    model: PreTrainedModel,
    example: Batch,
    notes: list[str],
) -> Plan:
    arguments = training_arguments(request.training, folder, 0)
    steps = total_steps(len(texts.train), arguments)
    if not steps:
        raise InputError(
            f"there are {len(texts.train)} examples, less than one batch, and --dataloader_drop_last drops it",
            "lower --per_device_train_batch_size",
        )
    batch = arguments.train_batch_size * arguments.gradient_accumulation_steps * arguments.world_size
    origin = request.model.model_name_or_path or f"new {model.config.model_type}"
    return Plan(
        recipe=f"{request.recipe.name}: {request.recipe.summary}",
        data=texts.source,
        train=texts.train.sizes(),
        evaluation={**texts.evaluation.sizes(), "duplicates": texts.duplicates},
        block_size=texts.train.blocks.size if isinstance(texts.train, Packed) else None,
        model=origin,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        vocabulary=vocabulary(processor),
        epochs=round(steps * batch / len(texts.train), 2),
        steps=steps,
        batch=batch,
        learning_rate=arguments.learning_rate,
        precision="bfloat16 where safe" if arguments.bf16 else "float16 where safe" if arguments.fp16 else "float32",
        peak_memory=peak_memory(model, request.recipe, example, arguments.train_batch_size),
        output_dir=str(folder),
        notes=tuple(notes),
        writes=(str(folder), *([request.output.hub_model_id or folder.name] if request.output.push_to_hub else ())),
    )
