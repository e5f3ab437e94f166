"""What is hidden of an example, what the hidden steps are told apart from, and the batch of it (Baevski et al. 2020).

Everything is drawn from the example's own seed. The distributions are those of the paper and of its authors' code.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

MIN_SPANS = 2
"""Spans that are hidden at least, where the recording has room for two, as in the authors' code."""


def hide(draw: np.random.Generator, steps: int, probability: float, span: int) -> npt.NDArray[np.bool_]:
    """Which of the steps are hidden, bool [steps].

    ``probability * steps / span`` spans, rounded up or down by chance so that their mean is just that, begin at as
    many different places, all equally likely (section 3.1). They may overlap, but would fit without.
    """
    places = steps - span + 1
    spans = max(int(probability * steps / span + draw.random()), MIN_SPANS)
    first = draw.choice(places, size=min(spans, steps // span, places), replace=False)
    hidden = np.zeros(steps, dtype=np.bool_)
    hidden[np.add.outer(first, np.arange(span))] = True
    return hidden


def distract(draw: np.random.Generator, hidden: npt.NDArray[np.bool_], negatives: int) -> npt.NDArray[np.int64]:
    """For each hidden step as many others that are hidden as well, all equally likely, int64 [steps, negatives].

    Steps that are not hidden have zeros.
    """
    places = np.flatnonzero(hidden)
    others = draw.integers(len(places) - 1, size=(len(places), negatives))
    others += others >= np.arange(len(places))[:, None]  # all but the step itself
    table = np.zeros((len(hidden), negatives), dtype=np.int64)
    table[places] = places[others]
    return table


def collator(processor: Any, options: Any, training: bool) -> Callable[[list[dict[str, Any]]], dict[str, Any]]:
    """Batches for :func:`lmtasks_masked_speech.loss.loss`.

    - ``input_values``: float32 [examples, samples], padded on the right;
    - ``attention_mask``: int64 of the same shape, there when anything was padded;
    - ``mask_time_indices``: bool [examples, steps], what is hidden;
    - ``negatives``: int64 [examples, steps, negatives], numbers of other steps of the same example;
    - ``labels``: int64 [examples, steps], 0 at hidden steps, because of the candidates the first is right; else -100.

    In training also the numbers ``diversity_loss_weight`` and ``feature_penalty``, where they were asked for.
    """

    def collate(examples: list[dict[str, Any]]) -> dict[str, Any]:
        samples, steps = (max(sizes) for sizes in zip(*map(_size, examples), strict=True))
        values = np.full((len(examples), samples), processor.padding_value, dtype=np.float32)
        seen = np.zeros((len(examples), samples), dtype=np.int64)
        hidden = np.zeros((len(examples), steps), dtype=np.bool_)
        negatives = np.zeros((len(examples), steps, options.num_negatives), dtype=np.int64)
        for row, example in enumerate(examples):
            draw = np.random.default_rng(example["seed"])
            length, own = _size(example)
            values[row, :length], seen[row, :length] = example["input_values"], 1
            hidden[row, :own] = hide(draw, own, options.mask_time_prob, options.mask_time_length)
            negatives[row, :own] = distract(draw, hidden[row, :own], options.num_negatives)
        batch: dict[str, Any] = {
            "input_values": torch.from_numpy(values),
            "mask_time_indices": torch.from_numpy(hidden),
            "negatives": torch.from_numpy(negatives),
            "labels": torch.from_numpy(np.where(hidden, 0, -100)),
        }
        if not seen.all():
            batch["attention_mask"] = torch.from_numpy(seen)
        if training:
            weights = {name: getattr(options, name) for name in ("diversity_loss_weight", "feature_penalty")}
            batch |= {name: weight for name, weight in weights.items() if weight is not None}
        return batch

    return collate


def _size(example: dict[str, Any]) -> tuple[int, int]:
    return len(example["input_values"]), example["steps"]
