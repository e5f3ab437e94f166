"""How a trained model reads the text that it has not seen, token by token: what a report shows of it."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby, islice
from typing import Any

import numpy as np
import torch
from accelerate.utils import send_to_device
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lmtasks.api import EVALUATION_SEED, Batch, Recipe, has_targets, loss_terms
from lmtasks.artifacts.report.reading import Confidence, Guessed, Position, Reading, Surprise
from lmtasks.data.dataset import ExampleDataset
from lmtasks.data.text.packing import Packed
from lmtasks.data.text.special_tokens import special_names
from lmtasks.models.forward import MODEL_FAILURES, in_mode, sparse, without_cache
from lmtasks.models.shards import is_sharded
from lmtasks.runs.load import Data
from lmtasks.runs.marked import texts_of
from lmtasks.training.evaluation import fixed_chance

EXAMPLES, SECONDS = 64, 10.0
"""The most that is read, of examples spread over the whole text, and of time."""

SHOWN, SURPRISING, AROUND = 5, 25, 8
"""Examples that are shown whole, surprising tokens, and tokens shown on either side of one."""

GUESSES, BINS, PLACES = 3, 10, 16
"""Guesses for each target, bins of confidence, and groups of positions."""

PIECE = 256
"""Targets whose probabilities exist at once."""

ROWS, LOGITS = 8, 1 << 28
"""The most examples, and logits, that exist at once, too; these are 1 GiB in float32."""

LEAST = 1e-300
"""What a probability of nothing counts as."""


def read_held_out(model: PreTrainedModel, data: Data) -> Reading | None:
    """The model's reading of the first evaluation set.

    Returns:
        None where the examples are no text, where the model is in shards, which only all processes together can ask,
        or where the loss is not the sum over targets of what the model's logits say.
    """
    examples, tokenizer = data.encoded.evaluation, data.processor
    if not isinstance(examples, Packed) or not isinstance(tokenizer, PreTrainedTokenizerBase) or is_sharded(model):
        return None
    read: list[_One] = []
    ahead: int | None = None
    with in_mode(model), sparse(model), torch.no_grad(), fixed_chance():
        for batch in _batches(model, data, examples):
            if (logits := _logits(model, batch)) is None:
                return None
            if ahead is None and (ahead := _ahead(model, data.request.bound, batch, logits)) is None:
                return None
            read += _rows(batch, logits, ahead)
    return _reading(read, tokenizer) if read else None


def _batches(model: PreTrainedModel, data: Data, examples: Packed) -> Iterator[Batch]:
    """Batches with a target, of examples of one length, on the model's device, until the time is up."""
    began, device = time.monotonic(), next(model.parameters()).device
    dataset = ExampleDataset(examples, EVALUATION_SEED)
    collate = data.request.recipe.collator(data.processor, data.request.options, False)
    numbers = np.linspace(0, len(dataset) - 1, min(EXAMPLES, len(dataset))).round().astype(int).tolist()
    for length, alike in groupby((dataset[number] for number in numbers), key=lambda one: len(one["input_ids"])):
        rows = max(1, min(ROWS, LOGITS // max(1, length * _vocabulary(model))))
        while some := list(islice(alike, rows)):
            batch = collate(some)
            if has_targets(data.request.recipe.targets(batch)):
                yield send_to_device(batch, device)
            if time.monotonic() - began > SECONDS:
                return


def _vocabulary(model: PreTrainedModel) -> int:
    return int(getattr(model.config.get_text_config(), "vocab_size", 0))


def _logits(model: PreTrainedModel, batch: Batch) -> torch.Tensor | None:
    """The model's logits [examples, length, vocabulary], where a batch has a label for each token."""
    ids, labels = batch.get("input_ids"), batch.get("labels")
    if ids is None or labels is None or labels.shape != ids.shape or ids.numel() * _vocabulary(model) > LOGITS:
        return None
    logits, inputs = None, {name: value for name, value in batch.items() if name != "labels"}
    with suppress(*MODEL_FAILURES):  # the loss may give the model something else than the batch
        logits = model(**inputs, **without_cache(model)).logits
    return logits if torch.is_tensor(logits) and logits.ndim == 3 else None


def _ahead(model: PreTrainedModel, recipe: Recipe, batch: Batch, logits: torch.Tensor) -> int | None:
    """How many places before a label its logits stand, which is told by the loss, not by the kind of the model.

    Returns:
        None where the recipe's loss is of something else than these logits.
    """
    terms, _ = loss_terms(recipe.loss(model, batch))
    first = next(iter(terms.values()))
    for ahead in (0, 1):
        chances = np.concatenate([one.probabilities for one in _rows(batch, logits, ahead)])
        loss = -float(np.log(np.maximum(chances, LEAST)).sum())
        agrees = math.isclose(loss, float(first.sum), rel_tol=1e-3, abs_tol=1e-3)
        if len(terms) == 1 and len(chances) == int(first.count) and agrees:
            return ahead
    return None


@dataclass(frozen=True)
class _One:
    """One example, read.

    Args:
        ids: as they stood in the text, before anything was hidden, int64 [length].
        places: of the targets, int64 [targets].
        probabilities: of the targets, float64 [targets].
        guesses, confidence: ids and probabilities of the likeliest tokens, [targets, GUESSES].
    """

    ids: np.ndarray[Any, Any]
    places: np.ndarray[Any, Any]
    probabilities: np.ndarray[Any, Any]
    guesses: np.ndarray[Any, Any]
    confidence: np.ndarray[Any, Any]


def _rows(batch: Batch, logits: torch.Tensor, ahead: int) -> list[_One]:
    """The examples of a batch, those with a target."""
    rows = zip(logits, batch["input_ids"].cpu(), batch["labels"].cpu(), strict=True)
    return [one for row in rows if len((one := _one(*row, ahead)).places)]


def _one(logits: torch.Tensor, ids: torch.Tensor, labels: torch.Tensor, ahead: int) -> _One:
    places = (labels != -100).nonzero()[:, 0]
    places = places[(places >= ahead) & (places < len(logits) + ahead)]
    probabilities, guesses, confidence = [], [], []
    for piece in torch.split(places, PIECE):
        spread = logits[(piece - ahead).to(logits.device)].cpu().double().softmax(-1)  # few accelerators have float64
        probabilities.append(spread.gather(-1, labels[piece][:, None])[:, 0])
        best = spread.topk(min(GUESSES, spread.shape[-1]))
        guesses.append(best.indices)
        confidence.append(best.values)
    truth = torch.where(labels == -100, ids, labels)
    parts = (torch.cat(part).numpy() for part in (probabilities, guesses, confidence))
    return _One(truth.numpy(), places.numpy(), *parts)


def _reading(read: list[_One], tokenizer: PreTrainedTokenizerBase) -> Reading:
    places = np.concatenate([one.places for one in read])
    probabilities = np.concatenate([one.probabilities for one in read])
    confidence = np.concatenate([one.confidence[:, 0] for one in read])
    right = np.concatenate([one.guesses[:, 0] == one.ids[one.places] for one in read])
    return Reading(
        examples=len(read),
        targets=len(places),
        shown=[_shown(one, tokenizer) for one in read[:: max(1, len(read) // SHOWN)][:SHOWN]],
        surprising=list(_surprising(read, tokenizer)),
        calibration=list(_calibration(confidence, right)),
        positions=list(_positions(places, -np.log(np.maximum(probabilities, LEAST)))),
    )


def _shown(one: _One, tokenizer: PreTrainedTokenizerBase) -> list[tuple[str, Guessed | None]]:
    told = {int(place): _guessed(one, row, tokenizer) for row, place in enumerate(one.places)}
    return [(text, told.get(place)) for place, text in enumerate(_texts(one.ids, told, tokenizer))]


def _texts(ids: Any, told: Collection[int], tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """What each token adds to the text, which is nothing for a special one that nobody has to tell."""
    special = special_names(tokenizer)
    texts = zip(ids.tolist(), texts_of(ids.tolist(), tokenizer), strict=True)
    return ["" if token in special and place not in told else text for place, (token, text) in enumerate(texts)]


def _guessed(one: _One, row: int, tokenizer: PreTrainedTokenizerBase) -> Guessed:
    words = [tokenizer.decode([token]) for token in one.guesses[row].tolist()]
    return Guessed(float(one.probabilities[row]), list(zip(words, map(float, one.confidence[row]), strict=True)))


def _surprising(read: list[_One], tokenizer: PreTrainedTokenizerBase) -> Iterator[Surprise]:
    """The least likely targets, least likely first."""
    rows = sorted(
        (float(chance), number, row) for number, one in enumerate(read) for row, chance in enumerate(one.probabilities)
    )
    for _, number, row in rows[:SURPRISING]:
        one, place = read[number], int(read[number].places[row])
        start = max(0, place - AROUND)
        here = place - start
        texts = _texts(one.ids[start : place + AROUND + 1], {here}, tokenizer)
        guessed = _guessed(one, row, tokenizer)
        yield Surprise("".join(texts[:here]), texts[here], "".join(texts[here + 1 :]), guessed)


def _calibration(confidence: Any, right: Any) -> Iterator[Confidence]:
    """Guesses in bins of equal width."""
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    for number in np.unique(bins).tolist():
        inside = bins == number
        yield Confidence(int(inside.sum()), float(confidence[inside].mean()), float(right[inside].mean()))


def _positions(places: Any, losses: Any) -> Iterator[Position]:
    """Mean losses by position, in groups of equal width."""
    width = max(1, math.ceil((int(places.max()) + 1) / PLACES))
    for number in np.unique(places // width).tolist():
        inside = places // width == number
        mean = float(losses[inside].mean())
        yield Position(number * width, (number + 1) * width, int(inside.sum()), mean)
