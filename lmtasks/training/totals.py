"""What a run has had so far, over all of its legs: a resumed run tells of all its steps, not of its last ones."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

import torch
from transformers import TrainerCallback, TrainerState

from lmtasks.api import SOLE
from lmtasks.config.world import World

KEY = "lmtasks"
"""Where the Trainer's state, and with it ``trainer_state.json`` of each checkpoint, keeps the totals."""

WAITING = 1000
"""Losses that stay on the device at most: to ask for each would make the device wait."""


class TotalsCallback(TrainerCallback):
    """Sums the loss of every step, and the seconds, those before a resumption included.

    The sum is made in one order, one step after the other, so that a resumed run has the very same.
    """

    def on_train_begin(self, args: Any, state: TrainerState, *_: Any, **__: Any) -> None:
        """Begin where the checkpoint was left, or at nothing."""
        kept = state.stateful_callbacks.get(KEY)
        # A checkpoint without totals is one of the Trainer alone: nobody knows what was before it.
        self.first = 0 if kept else state.global_step
        kept = kept or {"losses": [0.0], "seconds": 0.0}
        world, losses = World.current(talking=True), kept["losses"]
        self.sum: float = losses[world.rank] if len(losses) == world.size else math.fsum(losses) / len(losses)
        self.seconds: float = kept["seconds"]
        self.began = time.monotonic()
        self.waiting: list[torch.Tensor] = []

    def add(self, loss: torch.Tensor) -> None:
        """One more batch.

        Args:
            loss: scalar; this process's share of the step's loss, times the number of processes.
        """
        self.waiting.append(loss.detach())
        if len(self.waiting) >= WAITING:
            self._count()

    def keep(self, state: TrainerState) -> None:
        """Put into the state what a resumption needs; in all processes at once."""
        seconds = self.seconds + time.monotonic() - self.began
        kept = {"losses": self._losses(), "seconds": seconds, "planned": state.max_steps}
        state.stateful_callbacks[KEY] = kept

    def complete(self, metrics: dict[str, Any], steps: int, samples: float) -> None:
        """Make the Trainer's metrics of its last steps those of all steps; in all processes at once.

        Args:
            steps: of the whole run, as are the samples.
        """
        losses = self._losses()
        if self.first:
            del metrics["train_loss"]
            return
        metrics["train_loss"] = math.fsum(losses) / len(losses) / max(1, steps)
        if self.seconds:
            runtime = self.seconds + metrics["train_runtime"]
            metrics["train_runtime"] = round(runtime, 4)
            metrics["train_samples_per_second"] = round(samples / runtime, 3)
            metrics["train_steps_per_second"] = round(steps / runtime, 3)

    def _losses(self) -> list[float]:
        """The sum of each process, by rank."""
        self._count()
        return World.current(talking=True).gather(self.sum)

    def _count(self) -> None:
        for loss in torch.stack(self.waiting).tolist() if self.waiting else ():
            self.sum += loss
        self.waiting.clear()


class Means:
    """What each term that has a name comes to, averaged over the steps since it was last told."""

    def __init__(self) -> None:
        self.steps = 0
        self.sums: dict[str, torch.Tensor] = {}

    def begin_step(self) -> None:
        """One more step of the optimiser."""
        self.steps += 1

    def add(self, shares: Mapping[str, torch.Tensor]) -> None:
        """One more batch.

        Args:
            shares: of the means of the step, by name; this process's, times the number of processes.
        """
        for name, share in shares.items():
            if name != SOLE:
                self.sums[name] = self.sums.get(name, 0) + share.detach()

    def take(self, accelerator: Any) -> dict[str, float]:
        """The means as lines of the log call them, ``NAME_loss``, over all processes; then begin anew."""
        told = {
            f"{name}_loss": float(accelerator.gather(total.reshape(1)).mean()) / self.steps
            for name, total in self.sums.items()
        }
        self.steps, self.sums = 0, {}
        return told
