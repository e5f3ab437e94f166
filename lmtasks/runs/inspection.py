"""The data of a run as its model would see them: read, tokenised, cut and collated by what a run itself uses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from lmtasks.api import EVALUATION_SEED, Examples, Recipe
from lmtasks.artifacts.failures import machine_failures
from lmtasks.config.request import configure, read_yaml
from lmtasks.data.dataset import ExampleDataset
from lmtasks.data.examples import EncodedCorpus
from lmtasks.data.mixed import Mixed, one_source, origin
from lmtasks.data.text.packing import Packed
from lmtasks.models.architectures import register_architectures
from lmtasks.registry.catalog import load_catalog
from lmtasks.runs.excerpts import column_name, in_one_line
from lmtasks.runs.load import Data, load_data
from lmtasks.runs.marked import Marked, marked

FREQUENT = 20
"""Tokens that are listed because they are frequent."""

_SHOWN = 64
"""Tokens of a document that are decoded to show how it begins."""


@dataclass(frozen=True)
class Inspection:
    """The data of a run.

    Args:
        splits: counts of ``train`` and ``evaluation``, with the name of the source or set behind it where it has one;
            see :func:`facts_of`.
        duplicates: how many held-out rows are in the training data, too, of all sets together.
        shown: the split that ``documents`` and ``examples`` are from.
        documents: the beginnings of the first documents, of a mix those of its first source, and their tokens.
        examples: the first ones, in the first epoch; none where they are no text.
    """

    recipe: str
    source: str
    column: str | None
    splits: dict[str, dict[str, Any]]
    duplicates: int
    notes: tuple[str, ...]
    shown: str
    documents: tuple[tuple[str, int], ...]
    examples: tuple[Marked, ...]

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        told = asdict(self)
        told["documents"] = [{"text": text, "tokens": tokens} for text, tokens in self.documents]
        told["examples"] = [{**asdict(one), "text": one.text} for one in self.examples]
        return told


@machine_failures()
def inspect_data(
    recipe: str | Recipe, *, config: str | Path | None = None, examples: int = 3, held_out: bool = False, **values: Any
) -> Inspection:
    """The data that a run would be trained on. No weights are loaded, and nothing but the cache of tokens is written.

    Args:
        recipe: name of an installed recipe, or a recipe.
        config: YAML file with more values; keyword arguments win over it.
        examples: how many documents and examples to show.
        held_out: show those held out instead of those to train on.
        values: everything that :func:`lmtasks.run` takes; what is about training alone changes nothing.

    Raises:
        InputError: as for a run.
    """
    catalog = load_catalog()
    chosen = recipe if isinstance(recipe, Recipe) else catalog.recipe(recipe)
    request = configure(catalog.watched(chosen), values, read_yaml(config) if config else None)
    register_architectures(catalog)
    data = load_data(request, training=True)
    encoded, processor = data.encoded, data.processor
    assert encoded.train is not None  # a run has training data
    shown = encoded.evaluation if held_out else encoded.train
    return Inspection(
        recipe=f"{data.request.recipe.name}: {data.request.recipe.summary}",
        source=encoded.source,
        column=column_name(data.request, data.corpus),
        splits={name: facts_of(part, processor) for name, part in _splits(encoded)},
        duplicates=sum(encoded.duplicates.values()),
        notes=data.notes,
        shown="evaluation" if held_out else "train",
        documents=tuple(_documents(shown, processor, examples)),
        examples=tuple(_examples(data, shown, examples, training=not held_out)),
    )


def _splits(encoded: EncodedCorpus) -> Iterator[tuple[str, Examples]]:
    """The sources of a mix apart, and the evaluation sets, under the names of their splits."""
    train = encoded.train
    sources = train.sources if isinstance(train, Mixed) else {"": train}
    for split, parts in (("train", sources), ("evaluation", encoded.evaluations)):
        for name, examples in parts.items():
            if examples is not None:
                yield f"{split} {name}".strip(), examples


def facts_of(examples: Examples, processor: Any) -> dict[str, Any]:
    """The sizes of a split, and for text ``documents``, ``tokens_per_document`` and ``frequent`` tokens.

    Tokens that the recipe puts around documents count in neither of the last two.
    """
    facts = examples.sizes()
    if not isinstance(examples, Packed) or not isinstance(processor, PreTrainedTokenizerBase):
        return facts
    lengths = _lengths(examples)
    quantiles = np.quantile(lengths, [0, 0.5, 0.9, 1], method="lower").tolist()
    return {
        **facts,
        "documents": len(lengths),
        "tokens_per_document": dict(zip(("min", "median", "p90", "max"), quantiles, strict=True)),
        "frequent": list(_frequent(examples, processor)),
    }


def _lengths(packed: Packed) -> Any:
    """The tokens of each document, int64 [documents]."""
    ends = np.append(packed.stream.documents[1:], packed.tokens)
    return ends - packed.stream.documents - len(packed.blocks.document_start) - len(packed.blocks.document_end)


def _frequent(packed: Packed, tokenizer: PreTrainedTokenizerBase) -> Iterator[dict[str, Any]]:
    counts = packed.counts(packed.tokens, framed=False)
    total = max(1, int(counts.sum()))
    for token in np.argsort(-counts, kind="stable")[:FREQUENT].tolist():
        if counts[token]:
            told = {"token": str(tokenizer.convert_ids_to_tokens(token)), "text": tokenizer.decode([token])}
            yield {"id": token, **told, "count": int(counts[token]), "share": int(counts[token]) / total}


def _documents(examples: Examples, processor: Any, count: int) -> Iterator[tuple[str, int]]:
    examples = one_source(examples)
    if isinstance(examples, Packed) and isinstance(processor, PreTrainedTokenizerBase):
        starts = examples.stream.documents[:count]
        for start, length in zip(starts.tolist(), _lengths(examples)[:count].tolist(), strict=True):
            begin = start + len(examples.blocks.document_start)
            ids = examples.stream.ids[begin : begin + min(length, _SHOWN)].tolist()
            yield in_one_line(processor.decode(ids, clean_up_tokenization_spaces=False).rstrip("\ufffd")), length


def _examples(data: Data, examples: Examples, count: int, *, training: bool) -> Iterator[Marked]:
    request, processor = data.request, data.processor
    if not isinstance(one_source(examples), Packed) or not isinstance(processor, PreTrainedTokenizerBase):
        return
    collate = request.recipe.collator(processor, request.options, training)
    dataset = ExampleDataset(examples, request.seed if training else EVALUATION_SEED)
    for number in range(min(count, len(dataset))):
        packed, there = origin(examples, number)
        if isinstance(packed, Packed):
            one = marked(number, collate([dataset[number]]), packed, there, request.recipe, processor)
            if one is not None:
                yield one
