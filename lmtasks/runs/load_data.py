"""The data of a run: configuration, processing class, corpus and examples, before a model is loaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

from transformers import PretrainedConfig

from lmtasks.api import BlockOptions
from lmtasks.config.presets import notes_on_preset
from lmtasks.config.request import Request
from lmtasks.data.corpus import TEXT, Corpus, load_sources
from lmtasks.data.examples import EncodedCorpus, chat_renderer, encode_corpus
from lmtasks.data.prepared.opening import open_prepared
from lmtasks.data.prepared.reading import prepared_examples
from lmtasks.errors import InputError
from lmtasks.models.added_tokens import AddedTokens, add_to
from lmtasks.models.config import fit_to_tokenizer, load_config, usable_length
from lmtasks.models.processor import load_processor, train_processor
from lmtasks.registry.faults import require_references


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


def load_data(
    request: Request, training: bool, check_config: Callable[[PretrainedConfig], None] = lambda config: None
) -> Data:
    """The data of a request: all that is looked at before a model is loaded; see :func:`load`.

    Args:
        check_config: refuses the model before its text is tokenised.
    """
    recipe = request.recipe
    # Who evaluates asks no pipeline; who trains will, hours later.
    require_references(recipe, "model_class", "processor", "metrics", *["pipeline"] * training)
    config = load_config(request.model, recipe)
    if request.data.prepared is not None:
        return _load_prepared(request, config, training, check_config)
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
    request, config, added, notes = fit_together(request, config, processor, check_config)
    encoded = encode_corpus(request, corpus if training else replace(corpus, training={}), processor, config)
    return Data(request, config, processor, corpus, encoded, added, (*notes, *encoded.notes()))


def _load_prepared(
    request: Request, config: PretrainedConfig, training: bool, check_config: Callable[[PretrainedConfig], None]
) -> Data:
    """The same of data that were prepared: there are no documents, only their examples."""
    prepared = open_prepared(request)
    if request.model.train_tokenizer:
        with prepared.tokenizer(request) as folder:
            own = replace(request.model, tokenizer_name=folder)
            processor = load_processor(replace(request, model=own), config)
    else:
        processor = load_processor(request, config)
    request, config, added, notes = fit_together(request, config, processor, check_config)
    encoded = prepared_examples(prepared, request, processor, training=training)
    corpus = Corpus({}, {}, prepared.source)
    return Data(request, config, processor, corpus, encoded, added, (*notes, *encoded.notes()))


def fit_together(
    request: Request, config: PretrainedConfig, processor: Any, check_config: Callable[[PretrainedConfig], None]
) -> tuple[Request, PretrainedConfig, AddedTokens, list[str]]:
    """Request, configuration and processing class made to fit each other, the tokens that were added, notes on how.

    Raises:
        InputError: a block that is longer than the model can take, or tokens that cannot be added.
    """
    fresh = not request.model.model_name_or_path
    added = add_to(processor, request.model.add_tokens, fresh)
    if fresh:
        config = fit_to_tokenizer(config, processor)
    check_config(config)
    request, notes = _fit_length(request, config, processor)
    return request, config, added, [*notes_on_preset(request.loop.preset, request.preset), *notes, *added.notes]


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
