"""Models beside each other on the same documents, with what chance explains of their differences."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lmtasks.api import Recipe
from lmtasks.artifacts.failures import machine_failures
from lmtasks.config.documents import READING
from lmtasks.config.request import configure
from lmtasks.data.corpus import Split, load_corpus
from lmtasks.errors import InputError, nearest
from lmtasks.inference.fitting_recipe import installed_recipe
from lmtasks.inference.likelihood import Metric
from lmtasks.progress import say
from lmtasks.runs.resampling import Bootstrap, Estimate, Numbers, sign_flip_test
from lmtasks.runs.scoring import Kind, Scorer, kind_of

PSEUDO: Kind = "pseudo_log_likelihood"

FEW = 20
"""Documents below which an interval is narrower than it should be."""


@dataclass(frozen=True)
class Measured:
    """One model on one set of documents.

    Args:
        model: as it was named.
        dataset: name of the set; empty where nobody gave one.
        kind: what its scores are; only models of one kind can be compared.
        documents, tokens, words, bytes: what was told.
        bits_per_byte: comparable between tokenizers.
        word_perplexity, byte_perplexity: the same likelihood for each word between spaces, and for each byte.
        accuracy: share of tokens guessed right; comparable between equal tokenizers alone.
        parameters: of the model.
        tokens_per_second: speed of scoring.
    """

    model: str
    dataset: str
    kind: Kind
    documents: int
    tokens: int
    words: int
    bytes: int
    bits_per_byte: Estimate
    word_perplexity: float
    byte_perplexity: float
    accuracy: Estimate
    parameters: int
    tokens_per_second: float


@dataclass(frozen=True)
class Difference:
    """How much more bits per byte one model needs than another on a set; less than 0: it is better.

    Args:
        than: the other model, the first of those that can be compared.
        p: of a two-sided test by flipped signs; see :func:`lmtasks.runs.resampling.sign_flip_test`.
    """

    model: str
    than: str
    dataset: str
    bits_per_byte: Estimate
    p: float


@dataclass(frozen=True)
class Comparison:
    """Models on sets of documents, in the order in which they were named, set by set."""

    measured: tuple[Measured, ...]
    differences: tuple[Difference, ...]


@machine_failures()
def compare(
    models: Sequence[str | Path],
    *,
    recipe: str | None = None,
    batch_size: int = 16,
    max_length: int | None = None,
    pll_metric: Metric = "original",
    max_documents: int | None = None,
    resamples: int = 2000,
    seed: int = 0,
    **data: Any,
) -> Comparison:
    """Several models on the same documents: bits per byte with intervals, and tests of their differences.

    Args:
        models: run folders, model folders or Hub ids.
        recipe: name of the recipe of all of them; found out for each when not given.
        batch_size, max_length, pll_metric: see :func:`lmtasks.score`; ``pll_metric`` is for masked models.
        max_documents: only so many of the first documents of each set.
        resamples: of the documents, for the intervals.
        seed: of what is drawn.
        data: what :func:`lmtasks.evaluate` takes of data: ``validation_file``, ``dataset_name``, ``eval_dataset``, ...

    Raises:
        InputError: fewer than two models, no data, or what :func:`lmtasks.score` refuses.
    """
    names = [str(model) for model in models]
    _check(names, resamples=resamples, seed=seed, max_documents=max_documents)
    recipes = {name: installed_recipe(name, recipe) for name in names}
    kinds = {name: kind_of(one) for name, one in recipes.items()}
    if pll_metric != "original" and PSEUDO not in kinds.values():
        raise InputError(f"--pll_metric {pll_metric} is about masked models, and none is", "leave --pll_metric out")
    sets = [_set(name, texts[:max_documents], resamples, seed) for name, texts in _documents(recipes, data).items()]
    told: dict[str, list[tuple[Measured, Numbers]]] = {}
    for name in names:
        metric: Metric = pll_metric if kinds[name] == PSEUDO else "original"
        scorer = Scorer(name, recipe, max_length=max_length, pll_metric=metric)
        told[name] = [_measured(name, scorer, one, batch_size) for one in sets]
    measured = [told[name][number][0] for number in range(len(sets)) for name in names]
    return Comparison(tuple(measured), tuple(_differences(names, kinds, sets, told, seed)))


@dataclass(frozen=True)
class _Set:
    """A set of documents, their bytes, and their resamples."""

    name: str
    texts: Sequence[str]
    bytes: Numbers
    drawn: Bootstrap


def _set(name: str, texts: Sequence[str], resamples: int, seed: int) -> _Set:
    if len(texts) < FEW:
        count = "1 document" if len(texts) == 1 else f"{len(texts)} documents"
        say(f"{f'{name}: ' if name else ''}{count}: too few for an interval or a test to say much")
    sizes = np.asarray([float(len(text.encode())) for text in texts])
    return _Set(name, texts, sizes, Bootstrap(len(texts), resamples, seed))


def _check(names: Sequence[str], **counts: int | None) -> None:
    if len(names) < 2:
        raise InputError("compare needs two models or more", "lmtasks compare RUN_OR_MODEL RUN_OR_MODEL")
    if twice := [name for number, name in enumerate(names) if name in names[:number]]:
        raise InputError(f"'{twice[0]}' is named twice", "name each model once")
    for name, value in counts.items():
        least = 0 if name == "seed" else 1
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < least):
            raise InputError(f"--{name} is {value!r}", f"a number, {least} or more")


def _documents(recipes: Mapping[str, Recipe], values: Mapping[str, Any]) -> dict[str, list[str]]:
    """The documents of each set, whole; the name of one that nobody named is empty."""
    given = {name: value for name, value in values.items() if value is not None}
    known = {alias for option in READING.values() for alias in (option.name, *option.aliases)}
    for name in given:
        if name not in known:
            raise InputError(f"compare takes no --{name}{nearest(name, known)}", "lmtasks compare --help shows what")
    if not {"validation_file", "dataset_name", "dataset", "eval_dataset"} & given.keys():
        raise InputError("compare needs documents", "--validation_file FILE, or --dataset with --validation_split")
    name, recipe = next(iter(recipes.items()))
    request = configure(recipe, {"model_name_or_path": name, **given})
    corpus = load_corpus(request.data, evaluation_only=True)
    return {name: list(_texts(split)) for name, split in corpus.evaluations.items()}


def _texts(split: Split) -> Iterator[str]:
    """The rows of a split as documents, those that hold something; a line without what ends it."""
    for some in split.texts():
        for text in some:
            if text.strip():
                yield text if split.documents else text.rstrip("\r\n")


def _measured(name: str, scorer: Scorer, documents: _Set, batch_size: int) -> tuple[Measured, Numbers]:
    """The figures of a model on a set, and the nats that it spends on each document."""
    began = time.monotonic()
    scores = scorer.score(documents.texts, batch_size=batch_size)
    seconds = max(time.monotonic() - began, 1e-9)
    nats = np.asarray([-score.value for score in scores])
    tokens, right = (np.asarray([float(getattr(one, part)) for one in scores]) for part in ("tokens", "correct"))
    words = sum(score.words for score in scores)
    one = Measured(
        model=name,
        dataset=documents.name,
        kind=scorer.kind,
        documents=len(scores),
        tokens=int(tokens.sum()),
        words=words,
        bytes=int(documents.bytes.sum()),
        bits_per_byte=documents.drawn.ratio(nats / math.log(2), documents.bytes),
        word_perplexity=_perplexity(float(nats.sum()) / words),
        byte_perplexity=_perplexity(float(nats.sum() / documents.bytes.sum())),
        accuracy=documents.drawn.ratio(right, tokens),
        parameters=scorer.parameters,
        tokens_per_second=round(float(tokens.sum()) / seconds, 1),
    )
    return one, nats


def _perplexity(nats: float) -> float:
    return math.exp(nats) if nats < 700 else math.inf


def _differences(
    names: Sequence[str],
    kinds: Mapping[str, Kind],
    sets: Sequence[_Set],
    told: Mapping[str, Sequence[tuple[Measured, Numbers]]],
    seed: int,
) -> Iterator[Difference]:
    """Each model beside the first one of its kind, on each set."""
    for number, documents in enumerate(sets):
        for name in names:
            first = next(other for other in names if kinds[other] == kinds[name])
            if name == first:
                continue
            bits = (told[name][number][1] - told[first][number][1]) / math.log(2)
            more = documents.drawn.ratio(bits, documents.bytes)
            yield Difference(name, first, documents.name, more, sign_flip_test(bits, seed))
