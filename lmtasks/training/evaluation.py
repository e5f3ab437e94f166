"""Evaluation: every target once, summed in float64, divided at the end."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
from accelerate.utils import send_to_device
from torch.utils.data import BatchSampler, DataLoader

from lmtasks.api import (
    EVALUATION_SEED,
    Batch,
    Collate,
    Examples,
    Extension,
    Recipe,
    has_targets,
    loss_terms,
    require_counted,
    resolve,
    target_counts,
    target_ids,
)
from lmtasks.config.world import World
from lmtasks.data.dataset import ExampleDataset
from lmtasks.data.text.packing import Packed
from lmtasks.data.text.tokenize import Places
from lmtasks.errors import RunError
from lmtasks.metrics import BitsPerByte
from lmtasks.models.forward import in_mode, sparse
from lmtasks.models.shards import is_sharded
from lmtasks.registry.faults import blamed

Figure = TypeVar("Figure", float, bool)

_WEIGHTS = "weights"
"""Where a row keeps the weights of terms; no metric has a feature that is a dictionary."""


def evaluate_model(
    model: torch.nn.Module,
    recipe: Recipe,
    dataset: ExampleDataset,
    collate: Collate,
    batch_size: int,
    progress: Callable[[int], None] = lambda examples: None,
) -> dict[str, float]:
    """The figures of a model on examples.

    Args:
        model: evaluated where its weights are, in evaluation mode; its mode is restored.
        batch_size: has no influence on the figures.
        progress: called with the number of examples done.

    Returns:
        ``loss`` in nats per target, ``targets``, ``unigram_loss`` and ``bits_per_byte`` for text, and
        what the recipe's metrics say. Where the loss has terms, ``loss`` is the weighted sum of their means,
        ``NAME_loss`` the mean of each, and all others are of the first term.

    Raises:
        RunError: the loss is not finite, there is nothing to predict, or the weight of a term changes.
    """
    world, frequencies = World.current(talking=True), _frequencies(dataset.examples)
    rows: list[dict[str, Any]] = []
    unigram = done = 0.0
    with in_mode(model), sparse(model), torch.no_grad(), fixed_chance():
        share, company = _share(dataset, batch_size, world), is_sharded(model)
        rounds = max(world.gather(len(share))) if company else len(share)
        for number, batch in enumerate(_batches(model, dataset, collate, share + [[0]] * (rounds - len(share)))):
            if number >= len(share) or (company and not has_targets(recipe.targets(batch))):
                recipe.loss(model, batch)  # the others need this process's part of the model
                continue
            if has_targets(asked := recipe.targets(batch)):  # one last token has nothing to be told from
                rows.append(_row(model, recipe, batch))
                unigram += _surprise(frequencies, target_ids(asked))
            done += len(next(iter(batch.values())))
            progress(int(done))
    parts = world.gather((rows, unigram))
    unigram = math.fsum(share for _, share in parts)
    return _figures(recipe, dataset, [row for rows, _ in parts for row in rows], unigram)


def figures_to_come(
    model: torch.nn.Module, recipe: Recipe, dataset: ExampleDataset, example: Batch
) -> dict[str, bool | None]:
    """The figures that :func:`evaluate_model` will give, by name, without evaluating.

    Args:
        example: a collated batch of the dataset that has a target.

    Returns:
        whether more is better; None where nobody says. A metric says it of all its figures with ``greater_is_better``,
        a bool, or of each with a mapping from their names.
    """
    with in_mode(model), sparse(model), torch.no_grad(), fixed_chance():
        rows = [_row(model, recipe, example)]
    unigram = _surprise(_frequencies(dataset.examples), target_ids(recipe.targets(example)))
    better: dict[str, bool] = {"loss": False, "unigram_loss": False, "bits_per_byte": False}
    better |= {f"{name}_loss": False for name in rows[0][_WEIGHTS]}
    for named, more_is_better in _measured(recipe, rows):
        better |= {name: more_is_better[name] for name in named if name in more_is_better}
    return {name: better.get(name) for name in _figures(recipe, dataset, rows, unigram)}


def _measured(recipe: Recipe, rows: list[dict[str, Any]]) -> Iterator[tuple[dict[str, float], Mapping[str, bool]]]:
    """What each metric says of the rows, and whether more of it is better where that is known.

    That of an extension under the extension's name, where the recipe's loss has the sums that it needs.
    """
    declared: list[tuple[Recipe | Extension, str, str]] = [(recipe, "", reference) for reference in recipe.metrics]
    declared.extend((one, f"{one.prefix}_", reference) for one in recipe.extensions for reference in one.metrics)
    for owner, prefix, reference in declared:
        with blamed(owner, "metrics", reference):
            metric = resolve(reference)(keep_in_memory=True)
            if prefix and not metric.features.keys() <= rows[0].keys():
                continue
            named = metric.compute(**{name: [row[name] for row in rows] for name in metric.features})
            said = getattr(metric, "greater_is_better", {})
            better = said if isinstance(said, Mapping) else dict.fromkeys(named, bool(said))
        yield _under(prefix, named), _under(prefix, better)


def _under(prefix: str, figures: Mapping[str, Figure]) -> dict[str, Figure]:
    return {f"{prefix}{name}": value for name, value in figures.items()}


@contextmanager
def fixed_chance() -> Iterator[None]:
    """While this is open, what is drawn is always the same, and nothing outside notices.

    Few models draw in evaluation, too: the hashes by which Reformer sorts its tokens.
    """
    with torch.random.fork_rng():
        torch.manual_seed(EVALUATION_SEED)
        yield


def _row(model: torch.nn.Module, recipe: Recipe, batch: Batch) -> dict[str, Any]:
    """The sums of a batch, by name, for the metrics; and the weights of its terms.

    ``loss`` and ``targets`` are of the first term; each that has a name is there as ``NAME_loss``, ``NAME_targets``.
    """
    terms, further = loss_terms(recipe.loss(model, batch))
    require_counted(recipe.name, terms, target_counts(recipe.targets(batch)))
    row: dict[str, Any] = {name: value.tolist() for name, value in further.items()}
    named = {name: term for name, term in terms.items() if name}
    for name, term in {**{f"{name}_": term for name, term in named.items()}, "": next(iter(terms.values()))}.items():
        row |= {f"{name}loss": float(term.sum), f"{name}targets": int(term.count)}
    return row | {_WEIGHTS: {name: float(term.weight) for name, term in named.items()}}


def _share(dataset: ExampleDataset, batch_size: int, world: World) -> list[list[int]]:
    """The numbers of this process's share of the examples, by batch; no example twice or left out.

    What is shorter than a block has batches of its own: padding moves the figures of some models.
    """
    examples, share = dataset.examples, range(world.rank, len(dataset), world.size)
    short = bisect.bisect_left(share, examples.whole if isinstance(examples, Packed) else len(dataset))
    parts = (BatchSampler(numbers, batch_size, drop_last=False) for numbers in (share[:short], share[short:]))
    return [batch for part in parts for batch in part]


def _batches(
    model: torch.nn.Module, dataset: ExampleDataset, collate: Collate, share: list[list[int]]
) -> Iterator[Batch]:
    """The batches on the model's device."""
    device = next(model.parameters()).device
    # A generator of its own: a loader draws a number when it starts, and training must not notice.
    loader: DataLoader[Any] = DataLoader(dataset, batch_sampler=share, collate_fn=collate, generator=torch.Generator())
    for batch in loader:
        yield send_to_device(batch, device)


def _surprise(frequencies: np.ndarray[Any, np.dtype[np.float64]], targets: torch.Tensor | None) -> float:
    """Nats that a unigram model spends on the targets; infinite for one that is not in the text, or not known."""
    if targets is None:
        return math.inf
    ids = targets.cpu().numpy()
    known = frequencies[ids[ids < len(frequencies)]]
    return -float(np.log(known).sum()) if len(known) == len(ids) and known.all() else math.inf


def _frequencies(examples: Examples) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The frequency of each token among those of the evaluated text that could be targets, float64 [vocabulary].

    It is the best that a unigram model can know: the baseline is fitted to the very text that it is
    measured on, so beating it means something. What is no text has no tokens, and so no baseline.
    """
    if not isinstance(examples, Packed):
        return np.zeros(0)
    counts = _possible_targets(examples, len(examples.used))
    return np.asarray(counts / max(1, counts.sum()))


def _possible_targets(packed: Packed, end: int) -> Places:
    """Counts of each token before the places of the stream where it could be a target, int64 [vocabulary].

    That a token is none by where a block begins, or by how masks are drawn, is chance. Never are those
    that the recipe says, and what begins a document that sees nothing before it: it is given, not told.
    Views are of the text alone, without what is around documents.
    """
    stream, blocks = packed.stream, packed.blocks
    counts = packed.counts(end, framed=not packed.is_view)
    if not packed.is_view and blocks.document_start:
        alone = blocks.isolate or blocks.line_by_line
        begun = stream.documents if alone else stream.documents[:1]
        counts -= np.bincount(stream.ids[begun[begun < end]], minlength=len(counts))
    counts[[token for token in blocks.never_targets if token < len(counts)]] = 0
    return counts


def _of_terms(rows: list[dict[str, Any]]) -> dict[str, float]:
    """The mean of each term that has a name, and the loss that they make; a term without targets has no mean."""
    weights: dict[str, float] = rows[0][_WEIGHTS]
    if changed := [name for name in weights if any(row[_WEIGHTS][name] != weights[name] for row in rows)]:
        raise RunError(f"the weight of the term '{changed[0]}' changes from batch to batch", "make it one number")
    means = {}
    for name in weights:
        if count := sum(row[f"{name}_targets"] for row in rows):
            means[name] = math.fsum(row[f"{name}_loss"] for row in rows) / count
    named = {f"{name}_loss": mean for name, mean in means.items()}
    return {"loss": math.fsum(weights[name] * mean for name, mean in means.items()), **named} if weights else {}


def _figures(recipe: Recipe, dataset: ExampleDataset, rows: list[dict[str, Any]], unigram: float) -> dict[str, float]:
    targets = sum(row["targets"] for row in rows)
    if not targets:
        raise RunError("the evaluation data has nothing to predict", "give more of it")
    figures: dict[str, float] = {"loss": math.fsum(row["loss"] for row in rows) / targets}
    for named, _ in _measured(recipe, rows):
        figures |= named
    figures |= _of_terms(rows)  # last, for perplexity tells of the loss of the first
    if not math.isfinite(figures["loss"]):
        raise RunError(f"the evaluation loss is {figures['loss']}: the model has diverged", "lower --learning_rate")
    figures["targets"] = targets
    if math.isfinite(unigram):  # targets that are no words of the text have no baseline in it
        figures["unigram_loss"] = unigram / targets
    packed = dataset.examples
    if isinstance(packed, Packed) and packed.stream.bytes:
        columns = {name: [row[name] for row in rows] for name in ("loss", "targets")}
        # Of the whole text, also where only its first examples are evaluated: no token tells how many bytes it has.
        size = {"tokens": int(_possible_targets(packed, packed.tokens).sum()), "bytes": packed.stream.bytes}
        figures |= BitsPerByte(keep_in_memory=True).compute(**columns, **size)
    return figures
