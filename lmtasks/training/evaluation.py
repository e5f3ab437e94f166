"""Evaluation: every target once, summed in float64, divided at the end."""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
from accelerate.utils import send_to_device
from torch.utils.data import DataLoader

from lmtasks.api import (
    EVALUATION_SEED,
    Batch,
    Collate,
    Examples,
    Extension,
    Recipe,
    has_targets,
    kind,
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
from lmtasks.errors import InputError, RunError
from lmtasks.metrics import BitsPerByte
from lmtasks.models.forward import in_mode, sparse
from lmtasks.models.products import cheap_forward
from lmtasks.models.shards import is_sharded
from lmtasks.registry.faults import blamed
from lmtasks.training.sums import Row, Sums

Figure = TypeVar("Figure", float, bool)


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
        ``loss`` in nats per target, ``targets``, ``unigram_loss`` and ``bits_per_byte`` where words of a text are told,
        and what the recipe's metrics say. Where the loss has terms, ``loss`` is the weighted sum of their means,
        ``NAME_loss`` the mean of each, and all others are of the first term.

    Raises:
        RunError: the loss is not finite, there is nothing to predict, or the weight of a term changes.
    """
    world, frequencies = World.current(talking=True), _frequencies(dataset.examples)
    sums, unigram, done = Sums(), 0.0, 0
    with in_mode(model), sparse(model), torch.no_grad(), fixed_chance(), cheap_forward(_device(model), blocks=True):
        share, company = _Share(dataset, batch_size, world), is_sharded(model)
        own = len(share)
        share.rounds = max(world.gather(own)) if company else own
        for number, batch in enumerate(_batches(model, dataset, collate, share)):
            if number >= own or (company and not has_targets(recipe.targets(batch))):
                recipe.loss(model, batch)  # the others need this process's part of the model
                continue
            if has_targets(asked := recipe.targets(batch)):  # one last token has nothing to be told from
                sums.add(*_row(model, recipe, batch))
                unigram += _surprise(frequencies, target_ids(asked))
            done += len(next(iter(batch.values())))
            progress(done)
    return _figures(recipe, dataset, *sums.of_all(world), math.fsum(world.gather(unigram)))


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
        row, weights = _row(model, recipe, example)
    unigram = _surprise(_frequencies(dataset.examples), target_ids(recipe.targets(example)))
    better: dict[str, bool] = {"loss": False, "unigram_loss": False, "bits_per_byte": False}
    better |= {f"{name}_loss": False for name in weights}
    for named, more_is_better in _measured(recipe, row):
        better |= {name: more_is_better[name] for name in named if name in more_is_better}
    return {name: better.get(name) for name in _figures(recipe, dataset, row, weights, unigram)}


def require_sums(model: torch.nn.Module, recipe: Recipe, example: Batch) -> None:
    """See that every metric of a recipe gets what it asks for, while nothing is trained yet.

    Args:
        example: a collated batch that has a target.

    Raises:
        InputError: the loss gives no sum of a name that a metric wants.
        PluginError: a metric of a plugin cannot be made.
    """
    with in_mode(model), sparse(model), torch.no_grad(), fixed_chance():
        row, _ = _row(model, recipe, example)
    for _ in _metrics(recipe, row):
        pass


def _metrics(recipe: Recipe, row: Row) -> Iterator[tuple[Recipe | Extension, str, str, Any]]:
    """Each metric with who declared it, what its figures begin with, and its name.

    That of an extension only where the recipe's loss has the sums that it needs.
    """
    declared: list[tuple[Recipe | Extension, str, str]] = [(recipe, "", reference) for reference in recipe.metrics]
    declared.extend((one, f"{one.prefix}_", reference) for one in recipe.extensions for reference in one.metrics)
    for owner, prefix, reference in declared:
        with blamed(owner, "metrics", reference):
            metric = resolve(reference)(keep_in_memory=True)
        missing = sorted(metric.features.keys() - row.keys())
        if missing and not prefix:
            raise InputError(
                f"the metric {reference} of {recipe.name} wants {', '.join(missing)}, its loss gives"
                f" {', '.join(sorted(row))}",
                f"let the loss return {{'{missing[0]}': sum}} as its last item, or take the metric out of `metrics`",
            )
        if not missing:
            yield owner, prefix, reference, metric


def _measured(recipe: Recipe, row: Row) -> Iterator[tuple[dict[str, float], Mapping[str, bool]]]:
    """What each metric says of the sums, and whether more of it is better where that is known.

    That of an extension under the extension's name.
    """
    for owner, prefix, reference, metric in _metrics(recipe, row):
        with blamed(owner, "metrics", reference):
            named = metric.compute(**{name: [row[name]] for name in metric.features})
            if not isinstance(named, Mapping):
                raise TypeError(f"{reference} gives {kind(named)}, no figures by name")
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


def _row(model: torch.nn.Module, recipe: Recipe, batch: Batch) -> tuple[Row, dict[str, float]]:
    """The sums of a batch, by name, for the metrics; and the weights of its terms that have a name.

    ``loss`` and ``targets`` are of the first term; each that has a name is there as ``NAME_loss``, ``NAME_targets``.
    """
    terms, further = loss_terms(recipe.loss(model, batch))
    require_counted(recipe.name, terms, target_counts(recipe.targets(batch)))
    row: Row = {name: value.tolist() for name, value in further.items()}
    named = {name: term for name, term in terms.items() if name}
    for name, term in {**{f"{name}_": term for name, term in named.items()}, "": next(iter(terms.values()))}.items():
        row |= {f"{name}loss": float(term.sum), f"{name}targets": int(term.count)}
    return row, {name: float(term.weight) for name, term in named.items()}


class _Share:
    """The numbers of this process's share of the examples, by batch; no example twice or left out, and none listed.

    What is shorter than a block has batches of its own: padding moves the figures of some models.
    """

    def __init__(self, dataset: ExampleDataset, batch_size: int, world: World) -> None:
        examples, own = dataset.examples, range(world.rank, len(dataset), world.size)
        short = bisect.bisect_left(own, examples.whole if isinstance(examples, Packed) else len(dataset))
        self.parts, self.batch_size = (own[:short], own[short:]), batch_size
        self.rounds = 0

    def __len__(self) -> int:
        return sum(-(-len(part) // self.batch_size) for part in self.parts)

    def __iter__(self) -> Iterator[Sequence[int]]:
        """The batches, and beyond them the first example until there were so many rounds."""
        for part in self.parts:
            yield from (part[first : first + self.batch_size] for first in range(0, len(part), self.batch_size))
        yield from itertools.repeat([0], max(0, self.rounds - len(self)))


def _batches(
    model: torch.nn.Module, dataset: ExampleDataset, collate: Collate, share: Iterable[Any]
) -> Iterator[Batch]:
    """The batches on the model's device."""
    device = _device(model)
    # A generator of its own: a loader draws a number when it starts, and training must not notice.
    loader: DataLoader[Any] = DataLoader(dataset, batch_sampler=share, collate_fn=collate, generator=torch.Generator())
    for batch in loader:
        yield send_to_device(batch, device)


def _device(model: torch.nn.Module) -> torch.device:
    return next(model.parameters()).device


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


def _of_terms(row: Row, weights: Mapping[str, float]) -> dict[str, float]:
    """The mean of each term that has a name, and the loss that they make; a term without targets has no mean."""
    means = {name: row[f"{name}_loss"] / count for name in weights if (count := row[f"{name}_targets"])}
    named = {f"{name}_loss": mean for name, mean in means.items()}
    return {"loss": math.fsum(weights[name] * mean for name, mean in means.items()), **named} if weights else {}


def _figures(
    recipe: Recipe, dataset: ExampleDataset, row: Row, weights: Mapping[str, float], unigram: float
) -> dict[str, float]:
    targets = row.get("targets", 0)
    if not targets:
        raise RunError("the evaluation data has nothing to predict", "give more of it")
    figures: dict[str, float] = {"loss": row["loss"] / targets}
    for named, _ in _measured(recipe, row):
        figures |= named
    figures |= _of_terms(row, weights)  # last, for perplexity tells of the loss of the first
    if not math.isfinite(figures["loss"]):
        raise RunError(f"the evaluation loss is {figures['loss']}: the model has diverged", "lower --learning_rate")
    figures["targets"] = targets
    if not recipe.vocabulary:  # what is told of the text is not its words
        return figures
    if math.isfinite(unigram):  # targets that are no words of the text have no baseline in it
        figures["unigram_loss"] = unigram / targets
    packed = dataset.examples
    if isinstance(packed, Packed) and packed.stream.bytes:
        columns = {name: [row[name]] for name in ("loss", "targets")}
        # Of the whole text, also where only its first examples are evaluated: no token tells how many bytes it has.
        size = {"tokens": int(_possible_targets(packed, packed.tokens).sum()), "bytes": packed.stream.bytes}
        figures |= BitsPerByte(keep_in_memory=True).compute(**columns, **size)
    return figures
