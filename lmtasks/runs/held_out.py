"""How a trained model reads the text that it has not seen, token by token: what a report shows of it."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate.utils import send_to_device
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lmtasks.api import EVALUATION_SEED, Batch, Recipe, has_targets, loss_terms
from lmtasks.artifacts.report.reading import Confidence, Guessed, Position, Reading, Surprise
from lmtasks.data.dataset import ExampleDataset
from lmtasks.data.text.packing import Packed
from lmtasks.models.forward import MODEL_FAILURES, in_mode, sparse, without_cache
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

LOGITS = 1 << 28
"""The most logits of an example, which exist at once, too: 1 GiB in float32."""


def read_held_out(model: PreTrainedModel, data: Data) -> Reading | None:
    """The model's reading of the first evaluation set.

    Returns:
        None where the examples are no text, or the loss is not the sum over targets of what the model's logits say.
    """
    examples, tokenizer = data.encoded.evaluation, data.processor
    if not isinstance(examples, Packed) or not isinstance(tokenizer, PreTrainedTokenizerBase):
        return None
    read = []
    with in_mode(model), sparse(model), torch.no_grad(), fixed_chance():
        for batch in _batches(model, data, examples):
            if (one := _read(model, data.request.bound, batch)) is None:
                return None
            read.append(one)
    return _reading(read, tokenizer) if read else None


def _batches(model: PreTrainedModel, data: Data, examples: Packed) -> Iterator[Batch]:
    """Batches of one example with a target, on the model's device, until the time is up."""
    began, device = time.monotonic(), next(model.parameters()).device
    dataset = ExampleDataset(examples, EVALUATION_SEED)
    collate = data.request.recipe.collator(data.processor, data.request.options, False)
    count = min(EXAMPLES, len(dataset))
    for number in np.linspace(0, len(dataset) - 1, count).round().astype(int).tolist():
        batch = collate([dataset[number]])
        if has_targets(data.request.recipe.targets(batch)):
            yield send_to_device(batch, device)
        if time.monotonic() - began > SECONDS:
            return


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


def _read(model: PreTrainedModel, recipe: Recipe, batch: Batch) -> _One | None:
    """The example of a batch, read; None if the recipe's loss is of something else than the logits at its labels."""
    ids, labels = batch.get("input_ids"), batch.get("labels")
    vocabulary = getattr(model.config.get_text_config(), "vocab_size", 0)
    if ids is None or labels is None or labels.shape != ids.shape or ids.numel() * vocabulary > LOGITS:
        return None
    terms, _ = loss_terms(recipe.loss(model, batch))
    if len(terms) != 1:
        return None
    (term,) = terms.values()
    logits, inputs = None, {name: value for name, value in batch.items() if name != "labels"}
    with suppress(*MODEL_FAILURES):  # the loss may give the model something else than the batch
        logits = model(**inputs, **without_cache(model)).logits
    if not torch.is_tensor(logits) or logits.ndim != 3:
        return None
    # Which logits are of a label is found by the loss that they make, not by what kind of model it is.
    for ahead in (0, 1):
        places = (labels[0] != -100).nonzero()[:, 0]
        places = places[(places >= ahead) & (places < logits.shape[1] + ahead)]
        one = _one(logits[0], ids[0], labels[0], places, ahead)
        if len(places) == int(term.count) and math.isclose(
            -float(np.log(np.maximum(one.probabilities, 1e-300)).sum()), float(term.sum), rel_tol=1e-3, abs_tol=1e-3
        ):
            return one
    return None


def _one(logits: Any, ids: Any, labels: Any, places: Any, ahead: int) -> _One:
    probabilities, guesses, confidence = [], [], []
    for piece in places.split(PIECE):
        spread = logits[piece - ahead].cpu().double().softmax(-1)  # not every accelerator has float64
        probabilities.append(spread.gather(-1, labels[piece][:, None].cpu())[:, 0])
        best = spread.topk(min(GUESSES, spread.shape[-1]))
        guesses.append(best.indices)
        confidence.append(best.values)
    truth = torch.where(labels == -100, ids, labels)
    parts = (torch.cat(part).numpy() for part in (probabilities, guesses, confidence))
    return _One(truth.cpu().numpy(), places.cpu().numpy(), *parts)


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
        positions=list(_positions(places, -np.log(np.maximum(probabilities, 1e-300)))),
    )


def _shown(one: _One, tokenizer: PreTrainedTokenizerBase) -> list[tuple[str, Guessed | None]]:
    told = {int(place): _guessed(one, row, tokenizer) for row, place in enumerate(one.places)}
    return [(text, told.get(place)) for place, text in enumerate(texts_of(one.ids.tolist(), tokenizer))]


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
        texts = texts_of(one.ids[start : place + AROUND + 1].tolist(), tokenizer)
        here = place - start
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
