"""An engine in plain torch, as somebody would write it who knows no Trainer: the specimen of the tests.

Its parts are methods, so that a test can put a wrong one in the place of each.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from lmtasks import Course, Engine, GlobalBatch, LossTerm, Trained, Training
from lmtasks.api import loss_terms, weigh

ADAM = ("weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon", "max_grad_norm")


class Loop:
    """Adam, step by step."""

    def __init__(self, training: Training) -> None:
        self.training, self.model, self.arguments = training, training.model, training.arguments
        named = [(name, weights) for name, weights in self.model.named_parameters() if weights.requires_grad]
        spared = self.spared()
        groups = [
            {"params": [weights for name, weights in named if name not in spared]},
            {"params": [weights for name, weights in named if name in spared], "weight_decay": 0.0},
        ]
        asked = self.arguments
        how = {"betas": (asked.adam_beta1, asked.adam_beta2), "eps": asked.adam_epsilon}
        self.optimizer = torch.optim.AdamW(groups, weight_decay=asked.weight_decay, **how)
        if training.checkpoint:
            self.load(training.checkpoint)

    def train(self) -> Trained:
        with self.training.course(self.sync, self.save) as course:
            for step, batch in enumerate(self.batches(), self.training.done):
                self.step(step, batch, course)
            return course.done()

    def step(self, step: int, batch: GlobalBatch, course: Course) -> None:
        self.model.train()
        total, means = torch.zeros(()), dict.fromkeys(batch.counts, 0.0)
        for part in batch.batches:
            terms, _ = loss_terms(self.training.recipe.loss(self.model, part))
            shares = self.shares(terms, batch)
            loss = weigh(terms, shares)
            loss.backward()
            total += loss.detach()
            means = {name: means[name] + share.detach() for name, share in shares.items()}
        norm = self.clip()
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(step)
        self.optimizer.step()
        self.optimizer.zero_grad()
        course.step(total, means, norm)

    def batches(self) -> Iterator[GlobalBatch] | Iterable[GlobalBatch]:
        return self.training.global_batches()

    def shares(self, terms: Mapping[str, LossTerm], batch: GlobalBatch) -> dict[str, torch.Tensor]:
        return {name: term.sum / batch.counts[name] for name, term in terms.items()}

    def spared(self) -> frozenset[str]:
        return self.training.undecayed

    def rate(self, step: int) -> float:
        return self.training.rate(step)

    def clip(self) -> torch.Tensor:
        return torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.arguments.max_grad_norm or math.inf)

    def sync(self) -> None:
        """The model has the weights already."""

    def save(self, folder: Path) -> None:
        torch.save(self.optimizer.state_dict(), folder / "optimizer.pt")

    def load(self, folder: Path) -> None:
        self.optimizer.load_state_dict(torch.load(folder / "optimizer.pt", weights_only=True))


def engine(loop: type[Loop] = Loop, **fields: Any) -> Engine:
    """An engine of such a loop."""
    usual = {"name": "plain", "summary": "Adam, step by step.", "arguments": ADAM, "resumes": True}
    return Engine(train=lambda training, options: loop(training).train(), **{**usual, **fields})


PLAIN = engine()
