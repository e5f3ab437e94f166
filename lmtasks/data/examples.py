"""The documents of a run as examples, with what is worth knowing about them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from transformers import PretrainedConfig

from lmtasks.api import EVALUATION_SEED, Batch, BlockOptions, Blocks, Examples, Layout
from lmtasks.config.request import Request
from lmtasks.data.corpus import TEXT, Corpus, Split
from lmtasks.data.dataset import ExampleDataset
from lmtasks.data.text.encode import encode
from lmtasks.errors import InputError


@dataclass(frozen=True)
class EncodedCorpus:
    """A corpus as numbered examples.

    Args:
        source: short words for people.
        train: None where only an evaluation was asked for.
        duplicates: how many held-out rows are in the training data, too.
        empty: how many documents were left out because they hold nothing.
        medium: what they are, in a word.
    """

    source: str
    train: Examples | None
    evaluation: Examples
    duplicates: int
    empty: int
    medium: str

    def notes(self) -> Iterator[str]:
        """Warnings for a person who is about to train on them."""
        if self.train is not None:
            yield from self.train.notes("training")
        yield from self.evaluation.notes("held-out")
        if self.duplicates:
            sizes = self.evaluation.sizes()
            yield (
                f"{self.duplicates:,} of {sizes['rows']:,} held-out {sizes['unit']}"
                f" are in the training {self.medium}, too"
            )
        if self.empty:
            yield f"documents without {self.medium} left out: {self.empty:,}"


def encode_corpus(request: Request, corpus: Corpus, processor: Any, config: PretrainedConfig) -> EncodedCorpus:
    """The splits of a corpus as the recipe wants them.

    Raises:
        InputError: nothing to predict in the training data, or what cannot be encoded.
    """
    data, medium = request.data, request.recipe.medium or TEXT
    request.recipe.views(processor, request.options)  # their options are checked now, used at the end
    train, duplicates, empty = None, 0, corpus.evaluation.blank
    if corpus.train is not None:
        train = examples_of(request, "training", corpus.train, processor, config).head(data.max_train_samples)
        one_example(request, processor, train, "training")
        duplicates, empty = medium.duplicates(corpus.train, corpus.evaluation), empty + corpus.train.blank
    name = "evaluation" if train is None else "held-out"
    evaluation = examples_of(request, name, corpus.evaluation, processor, config, whole=True)
    evaluation = evaluation.head(data.max_eval_samples)
    return EncodedCorpus(corpus.source, train, evaluation, duplicates, empty, medium.name)


def examples_of(
    request: Request, name: str, split: Split, processor: Any, config: PretrainedConfig, *, whole: bool = False
) -> Examples:
    """A split as the recipe wants it, under a name such as "training"; ``whole`` in evaluation: no text left over."""
    layout, data = layout_of(request, processor), request.data
    if isinstance(layout, Blocks):
        fresh, workers = data.overwrite_cache, data.preprocessing_num_workers
        return encode(name, split, processor, layout, fresh, workers, whole=whole)
    return layout.examples(name, split, processor, config)


def layout_of(request: Request, processor: Any) -> Blocks | Layout:
    """How the recipe's documents become examples.

    Raises:
        InputError: an option of all recipes that this one takes no notice of.
    """
    options = request.options
    layout = request.recipe.preprocess(processor, options)
    if isinstance(options, BlockOptions) and isinstance(layout, Blocks):
        for name, heeded in (("line_by_line", layout.line_by_line), ("isolate_documents", layout.isolate)):
            if getattr(options, name) != heeded:
                raise InputError(f"{request.recipe.name} takes no notice of --{name}", f"leave --{name} out")
    return layout


def one_example(request: Request, processor: Any, examples: Examples, name: str) -> Batch:
    """A batch of the longest example that has a target, as the recipe collates it for evaluation.

    Raises:
        InputError: no example of the split of that name has one.
    """
    collate = request.recipe.collator(processor, request.options, False)
    dataset = ExampleDataset(examples, EVALUATION_SEED)
    for number in examples.longest_first():
        batch = collate([dataset[number]])
        if request.recipe.targets(batch).numel():
            return batch
    medium = (request.recipe.medium or TEXT).name
    raise InputError(
        f"the {name} {medium} has nothing to predict in its {examples.total:,} {examples.unit}",
        f"give more {medium}, or another --tokenizer_name",
    )
