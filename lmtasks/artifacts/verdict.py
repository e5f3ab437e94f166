"""The verdict on a run: what it is worth, in sentences, by nothing but its figures and its log."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, variance
from typing import Any

from lmtasks.config.evaluation_sets import UNNAMED, set_names, set_of
from lmtasks.progress import duration

FEW = 8
"""Lines of a log in which quarters of a run can be told apart."""

CHANGE = 0.02
"""Nats that are a change, however little the losses scatter."""

LITTLE = 0.1
"""Nats under the baseline, or between training and held-out text, that are next to nothing."""

GAP = 0.5
"""Nats by which the training text is told better, that are too many."""

LONGER = 3
"""Times the steps that are advised where the loss still falls."""

RATE = 1e-3
"""Learning rate under which a small model from scratch hardly moves."""


@dataclass(frozen=True)
class Verdict:
    """The worth of a run.

    Args:
        sentences: what its figures say, for people.
        flags: what to try next, to be typed after the command of the run; empty where no flag is known to help.
        publishable: false where guessing by frequency is better.
    """

    sentences: tuple[str, ...]
    flags: str
    publishable: bool


def verdict_of(record: Mapping[str, Any], history: Sequence[Mapping[str, Any]]) -> Verdict:
    """The verdict on a finished run; where something is not known, nothing is said of it.

    Args:
        record: of the run, with its ``metrics`` and ``training``; without ``base_model`` it began from scratch.
        history: its log, an entry for each line.
    """
    seen = _Seen(record, history)
    sentences = (*seen.worth(), *seen.trend(), *seen.fit())
    return Verdict(sentences, " ".join(seen.flags()), seen.under is None or seen.under > 0)


def recorded_verdict(record: Mapping[str, Any]) -> Verdict | None:
    """The verdict that the record of a run keeps; None where it is not finished, or of an earlier version."""
    kept = record.get("verdict")
    return Verdict(tuple(kept["sentences"]), kept["flags"], kept["publishable"]) if isinstance(kept, dict) else None


def ten_times(metrics: Mapping[str, Any]) -> str:
    """What more would take; no part of the verdict, for that is the same for each run of a request."""
    seconds = _number(metrics.get("train_runtime"))
    return f"ten times the steps, or the text, would take {duration(10 * seconds)}" if seconds else ""


class _Seen:
    """The figures that sentences are made of; None where one is not known."""

    def __init__(self, record: Mapping[str, Any], history: Sequence[Mapping[str, Any]]) -> None:
        metrics = record["metrics"]
        self.training, self.fresh = record["training"], record.get("base_model") is None
        self.loss, self.baseline = _number(metrics.get("eval_loss")), _number(metrics.get("unigram_loss"))
        sets = set_names(metrics)
        plain = [name for name in metrics if set_of(name, sets)[0] == UNNAMED]
        if any(re.fullmatch("eval_.+_loss", name) for name in plain):
            self.baseline = None  # the loss is made of several terms
        self.under = None if self.loss is None or self.baseline is None else self.baseline - self.loss
        losses = [loss for line in history if (loss := _number(line.get("loss"))) is not None]
        self.drop, self.scatter, self.trained = _quarters(losses)
        known = ((_number(line.get("eval_loss")), int(line["step"])) for line in history)
        evaluated = [(loss, step) for loss, step in known if loss is not None]
        self.best, self.best_step = min(evaluated, default=(0.0, 0))
        self.since, self.steps = (evaluated[-1][0] - self.best, evaluated[-1][1]) if evaluated else (0.0, 0)

    @property
    def falls(self) -> bool:
        return self.drop is not None and self.drop >= self.scatter

    @property
    def rises(self) -> bool:
        return self.drop is not None and -self.drop >= self.scatter

    @property
    def past_best(self) -> bool:
        """Whether an earlier evaluation was better than the last."""
        return self.since > CHANGE

    @property
    def gap(self) -> float | None:
        """Nats by which the training text is told better than the text held out."""
        return None if self.trained is None or self.loss is None else self.loss - self.trained

    def worth(self) -> Iterator[str]:
        if self.under is None:
            return
        side = f"{abs(self.under):.2f} nats {'under' if self.under > 0 else 'ABOVE'} the unigram baseline"
        what = f"{side} of {self.baseline:.2f}"
        if self.under <= 0:
            yield f"{what}: guessing by frequency is better"
        elif self.under < LITTLE:
            yield f"{what}: hardly better than frequency"
        else:
            yield f"{what}: it uses the text around a word"

    def trend(self) -> Iterator[str]:
        if self.drop is None:
            return
        amount = f"{abs(self.drop):.2f} nats of training loss in the last quarter of the steps"
        if self.falls:
            yield f"still falling: {amount}"
        elif self.rises:
            yield f"rising: {amount}"
        else:
            yield f"flat: less than {self.scatter:.2f} nats of training loss in the last half of the steps"

    def fit(self) -> Iterator[str]:
        if self.past_best:
            kept = "; that model was kept" if self.training.get("load_best_model_at_end") else ""
            then = f"at step {self.best_step:,} of {self.steps:,}"
            yield f"overfitted: evaluation was best {then}, by {self.since:.2f} nats{kept}"
        elif self.gap is not None and self.gap > GAP:
            yield f"about to overfit: {self.gap:.2f} nats better on the training text than held out"
        elif self.gap is not None and self.gap < LITTLE and self.falls:
            yield "underfitted: no better on the training text than on the text held out"
        elif self.gap is not None:
            yield f"neither over- nor underfitted: {self.trained:.2f} nats in training, {self.loss:.2f} held out"

    def flags(self) -> Iterator[str]:
        """What helps most, first; the learning rate is never changed together with what it is too high for."""
        rate = self.training["learning_rate"]
        if self.rises:
            yield f"--learning_rate {rate / LONGER:.1g}"
            return
        kept = self.training.get("load_best_model_at_end")
        if self.past_best and not kept:
            yield f"--max_steps {self.best_step}"
        if (self.past_best or (self.gap or 0) > GAP) and not self.training.get("weight_decay"):
            yield "--weight_decay 0.1"
        if self.past_best or (self.gap or 0) > GAP:
            return
        behind = self.under is not None and self.under < LITTLE
        if behind and self.fresh and rate < RATE:
            yield f"--learning_rate {RATE:g}"
        if self.falls or behind:
            steps = self.training.get("max_steps", -1)
            longer = f"--max_steps {LONGER * steps}" if steps > 0 else None
            yield longer or f"--num_train_epochs {LONGER * self.training['num_train_epochs']:g}"


def _number(value: Any) -> float | None:
    is_one = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if is_one else None


def _quarters(losses: Sequence[float]) -> tuple[float | None, float, float | None]:
    """How far the mean of the last quarter lies under that of the third, what that has to be to count, and the mean.

    A difference counts from twice its standard error on.
    """
    if len(losses) < FEW:
        return None, CHANGE, None
    size = len(losses) // 4
    third, last = losses[-2 * size : -size], losses[-size:]
    error = math.sqrt((variance(third) + variance(last)) / size)
    return fmean(third) - fmean(last), max(CHANGE, 2 * error), fmean(last)
