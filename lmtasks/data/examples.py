"""The documents of a run as examples, with what is worth knowing about them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from transformers import PretrainedConfig

from lmtasks.api import EVALUATION_SEED, Batch, BlockOptions, Blocks, Examples, Layout, has_targets
from lmtasks.config.evaluation_sets import UNNAMED, check_names
from lmtasks.config.mix import read_mix
from lmtasks.config.request import Request
from lmtasks.data.corpus import TEXT, Corpus, Render, Split
from lmtasks.data.dataset import ExampleDataset
from lmtasks.data.mixed import Mixed
from lmtasks.data.text.chat import rendered, require_template
from lmtasks.data.text.encode import encode
from lmtasks.data.text.special_tokens import as_plain_text
from lmtasks.errors import InputError
from lmtasks.registry.faults import blamed


@dataclass(frozen=True)
class EncodedCorpus:
    """A corpus as numbered examples.

    Args:
        source: short words for people.
        train: None where only an evaluation was asked for.
        evaluations: the evaluation sets by name; the name of one that nobody named is empty.
        duplicates: how many rows of each evaluation set are in the training data, too.
        empty: how many documents were left out because they hold nothing.
        dropped: how many were left out because somebody did not want them, by the setting that says so.
        medium: what they are, in a word.
    """

    source: str
    train: Examples | None
    evaluations: Mapping[str, Examples]
    duplicates: Mapping[str, int]
    empty: int
    dropped: Mapping[str, int]
    medium: str

    @property
    def evaluation(self) -> Examples:
        """The first evaluation set, or the only one."""
        return next(iter(self.evaluations.values()))

    def sizes(self) -> dict[str, dict[str, Any]]:
        """The sizes of each evaluation set, for plan, record and card."""
        return {
            name: {**examples.sizes(), "duplicates": self.duplicates[name]}
            for name, examples in self.evaluations.items()
        }

    def notes(self) -> Iterator[str]:
        """Warnings for a person who is about to train on them."""
        if self.train is not None:
            yield from self.train.notes("training")
        for name, examples in self.evaluations.items():
            called = f"held-out {name}".strip()
            yield from examples.notes(called)
            if self.duplicates[name]:
                sizes = examples.sizes()
                yield (
                    f"{self.duplicates[name]:,} of {sizes['rows']:,} {called} {sizes['unit']}"
                    f" are in the training {self.medium}, too"
                )
        if self.empty:
            yield f"documents without {self.medium} left out: {self.empty:,}"
        for name, count in self.dropped.items():
            yield f"documents left out by --{name}: {count:,}"


def encode_corpus(request: Request, corpus: Corpus, processor: Any, config: PretrainedConfig) -> EncodedCorpus:
    """The splits of a corpus as the recipe wants them.

    Raises:
        InputError: nothing to predict in the training data, or what cannot be encoded.
    """
    data, medium = request.data, request.recipe.medium or TEXT
    views = request.recipe.views(processor, request.options)  # their options are checked now, used at the end
    check_names(filter(None, corpus.evaluations), views)
    train: Examples | None = None
    if corpus.training:
        parts = {
            name: examples_of(request, f"training {name}".strip(), split, processor, config)
            for name, split in corpus.training.items()
        }
        train = (parts[UNNAMED] if UNNAMED in parts else _mixed(request, parts)).head(data.max_train_samples)
        one_example(request, processor, train, "training")
    evaluations: dict[str, Examples] = {}
    for name, split in corpus.evaluations.items():
        called = f"{'evaluation' if train is None else 'held-out'} {name}".strip()
        evaluations[name] = examples_of(request, called, split, processor, config).head(data.max_eval_samples)
    # A row that two sources have counts for each of them, but never more rows than there are.
    duplicates = {
        name: min(len(split), sum(medium.duplicates(part, split) for part in corpus.training.values()))
        for name, split in corpus.evaluations.items()
    }
    splits = [*corpus.training.values(), *corpus.evaluations.values()]
    empty = sum(split.blank for split in splits)
    dropped = sum((Counter(split.dropped) for split in splits), Counter())
    return EncodedCorpus(corpus.source, train, evaluations, duplicates, empty, dropped, medium.name)


def chat_renderer(request: Request, processor: Any) -> Render | None:
    """What makes texts of the conversations that a run is about; None where it is about texts.

    Raises:
        InputError: the tokenizer has no chat template, or the recipe is not about text.
    """
    if not request.data.chat:
        return None
    require_template(processor)
    layout = layout_of(request, processor)
    if not isinstance(layout, Blocks):
        raise InputError(f"--chat is about text, and {request.recipe.name} is not", "leave --chat out")
    return lambda rows, column, source: rendered(rows, column, processor, layout, source)


def _mixed(request: Request, parts: Mapping[str, Examples]) -> Mixed:
    mix = read_mix(request.data.data or {})
    weights = {source["name"]: source["weight"] for source in mix["sources"] if source["name"] in parts}
    return Mixed(parts, weights, mix["stopping_strategy"], request.seed)


def examples_of(request: Request, name: str, split: Split, processor: Any, config: PretrainedConfig) -> Examples:
    """A split as the recipe wants it, under a name such as "training"."""
    layout, data = layout_of(request, processor), request.data
    if isinstance(layout, Blocks):
        tokenizer = as_plain_text(processor) if data.split_special_tokens else processor
        return encode(name, split, tokenizer, layout, data.overwrite_cache, data.preprocessing_num_workers)
    with blamed(request.recipe, "preprocess", type(layout)):
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
        if has_targets(request.recipe.targets(batch)):
            return batch
    medium = (request.recipe.medium or TEXT).name
    raise InputError(
        f"the {name} {medium} has nothing to predict in its {examples.total:,} {examples.unit}",
        f"give more {medium}, or another --tokenizer_name",
    )
