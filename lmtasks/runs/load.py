"""Everything that a training or an evaluation works on, loaded and checked in one order: cheap checks first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

from transformers import PretrainedConfig, PreTrainedModel

from lmtasks.api import Batch, BlockOptions, resolve
from lmtasks.config.request import Request
from lmtasks.data.corpus import TEXT, Corpus, load_sources
from lmtasks.data.examples import EncodedCorpus, chat_renderer, encode_corpus
from lmtasks.errors import InputError
from lmtasks.models.added_tokens import AddedTokens, add_to
from lmtasks.models.checkpoint import load_model
from lmtasks.models.companions import accompany
from lmtasks.models.config import fit_to_tokenizer, load_config, usable_length
from lmtasks.models.memory import copies_of, require_memory
from lmtasks.models.processor import load_processor, train_processor
from lmtasks.runs.checks import check_first_loss, check_model, first_example, run_head_alone


@dataclass(frozen=True)
class Data:
    """The documents of a run as its recipe wants them, before a model is loaded.

    Args:
        request: with what had to be fitted to the model.
        config: of the model, fitted to the processing class where the model is to be made.
        added: the tokens that the user added to its vocabulary.
        notes: decisions that were taken for the user.
    """

    request: Request
    config: PretrainedConfig
    processor: Any
    corpus: Corpus
    encoded: EncodedCorpus
    added: AddedTokens
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Loaded:
    """Data, and the model that was found fit for them.

    Args:
        example: a batch of one example, the longest with a target.
    """

    data: Data
    model: PreTrainedModel
    example: Batch
    notes: tuple[str, ...]


def load(request: Request, *, training: bool, check_data: Callable[[Data], None] = lambda data: None) -> Loaded:
    """Configuration, processing class, corpus, examples and model, each checked before the next is loaded.

    Args:
        training: whether the model is to be trained; else there need be no training data.
        check_data: refuses data before the model is loaded.

    Raises:
        InputError: something is missing or does not fit; nothing was written.
    """
    copies, model_class = copies_of(request, training), resolve(request.recipe.model_class)
    data = load_data(request, training, lambda config: require_memory(model_class, config, copies, request.model))
    check_data(data)
    request, recipe, evaluation = data.request, data.request.recipe, data.encoded.evaluation
    kind = "held-out" if training else "evaluation"
    example = first_example(request, data.processor, data.encoded.evaluations, kind)
    loaded = load_model(request.model, recipe, data.config, data.processor, request.seed, data.added, request.adapter)
    accompanied = accompany(loaded.model, request, training=training)
    check_model(request, data.processor, loaded.model, evaluation, example, training=training)
    notes = [*data.notes, *loaded.notes(), *accompanied]
    if training and not request.model.model_name_or_path:
        notes.append(check_first_loss(loaded.model, request.bound, example))
    notes += run_head_alone(request, loaded.model, evaluation, example)
    return Loaded(data, loaded.model, example, tuple(notes))


def load_data(
    request: Request, training: bool, check_config: Callable[[PretrainedConfig], None] = lambda config: None
) -> Data:
    """The data of a request: all that is looked at before a model is loaded; see :func:`load`.

    Args:
        check_config: refuses the model before its text is tokenised.
    """
    recipe = request.recipe
    config = load_config(request.model, recipe)
    processor = None if request.model.train_tokenizer else load_processor(request, config)
    medium = recipe.medium or TEXT
    render = chat_renderer(request, processor)
    corpus = load_sources(
        request.data, medium=medium, sample=request.sample, evaluation_only=not training, render=render
    )
    if training and not corpus.training:
        raise InputError("a run needs training data", "add --train_file or --dataset")
    if processor is None and corpus.training:
        splits = corpus.training.values()
        processor = train_processor(request, lambda: chain.from_iterable(split.running_texts() for split in splits))
    fresh = not request.model.model_name_or_path
    added = add_to(processor, request.model.add_tokens, fresh)
    if fresh:
        config = fit_to_tokenizer(config, processor)
    check_config(config)
    request, notes = _fit_length(request, config, processor)
    encoded = encode_corpus(request, corpus if training else replace(corpus, training={}), processor, config)
    return Data(request, config, processor, corpus, encoded, added, (*notes, *added.notes, *encoded.notes()))


def _fit_length(request: Request, config: PretrainedConfig, processor: Any) -> tuple[Request, list[str]]:
    """Refuse a block that the user wants longer than the model can take; shorten a default one, with a note."""
    options = request.options
    usable = usable_length(config, request.recipe, processor) if isinstance(options, BlockOptions) else None
    if usable is None or options.block_size <= usable:
        return request, []
    if "block_size" in request.given:
        raise InputError(
            f"--block_size {options.block_size} is more than the model can take: {usable} tokens",
            f"--block_size {usable} or less",
        )
    fitted = replace(request, options=replace(options, block_size=usable))
    return fitted, [f"block_size {usable}: the model takes no more"]
