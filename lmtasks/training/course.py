"""The course of a training whose steps an engine makes: all that the Trainer does around a step."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from accelerate import skip_first_batches
from torch.utils.data import DataLoader
from transformers import TrainerState

from lmtasks.api import Batch
from lmtasks.artifacts.checkpoints import step_of
from lmtasks.training.totals import WAITING
from lmtasks.training.trained import Trained, trained_by
from lmtasks.training.trainer import RecipeTrainer


def _nothing(*_: Any) -> None:
    """In the place of what an engine need not give."""


class CourseTrainer(RecipeTrainer):
    """The Trainer without its loop and its optimiser: what is around a step is the Trainer's own code.

    Args:
        rate: the learning rate in the step after so many.
        steps: of the whole run.
        checkpoint: to go on from.
        saves: whether checkpoints are made.
    """

    def __init__(
        self, *, rate: Callable[[int], float], steps: int, checkpoint: Path | None, saves: bool, **named: Any
    ) -> None:
        callbacks = named["callbacks"]
        super().__init__(**named)
        self.rate, self.steps, self.checkpoint, self.own = rate, steps, checkpoint, tuple(callbacks)
        self.saves = saves
        self.first = step_of(checkpoint) if checkpoint else 0
        self.sync: Callable[[], None] = _nothing
        self.save_engine: Callable[[Path], None] = _nothing
        self._synced = -1

    # --- examples ---

    @cached_property
    def loader(self) -> DataLoader[Any]:
        """The loader of the training examples."""
        return self.get_train_dataloader()

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps of an epoch."""
        return max(1, -(-len(self.loader) // int(self.args.gradient_accumulation_steps)))

    def batches_of(self, epoch: int, steps: int) -> Iterator[Batch]:
        """The batches of an epoch, without those of its first so many steps, as the Trainer's loop gets them."""
        loader: Any = self.loader
        skipped = steps * self.args.gradient_accumulation_steps
        self.train_dataset.start_epoch(epoch)
        if self.positions is not None:
            self.positions.leave_out(skipped)
        if skipped:
            loader = skip_first_batches(loader, skipped)
        elif epoch * self.steps_per_epoch == self.first:
            self.restore_chance()
        loader.set_epoch(epoch)
        # accelerate does not tell a batch sampler within its own.
        sampler: Any = getattr(getattr(loader, "batch_sampler", None), "batch_sampler", None)
        if hasattr(sampler, "set_epoch"):
            sampler.set_epoch(epoch)
        yield from loader

    def counted(self, batches: Sequence[Batch]) -> dict[str, int]:
        """The targets of batches, by term of the loss; at least 1, for of none there is nothing to divide."""
        self.current_flos += sum(float(self.floating_point_ops(batch)) for batch in batches)
        counts = self._counts(list(batches))
        return {name: max(1, count) for name, count in zip(self.terms, counts, strict=True)}

    def restore_chance(self) -> None:
        """What the checkpoint's process would have drawn next is drawn next."""
        self._load_rng_state(str(self.checkpoint) if self.checkpoint else None)

    # --- events ---

    def begin(self) -> None:
        """What the Trainer does before its first step."""
        epochs = math.ceil(self.steps / self.steps_per_epoch)
        checkpoint = str(self.checkpoint) if self.checkpoint else None
        self._init_training_state(self.steps, self.steps_per_epoch, epochs, checkpoint, None)
        if self.positions is not None:
            self.positions.leave_out(0)  # who asks for batches says so himself
        self.is_in_train, self.began = True, time.time()
        self._initial_num_input_tokens_seen, self._initial_global_step = 0, self.state.global_step
        self._tr_loss, self._total_loss_scalar = torch.zeros((), dtype=torch.float64), 0.0
        self._globalstep_last_logged = self.state.global_step
        self.callback_handler.train_dataloader = self.loader
        self.control = self.callback_handler.on_train_begin(self.args, self.state, self.control)
        if self.args.eval_on_start and not self.is_over:
            self._evaluate(None, None, skip_scheduler=True)
        self.begin_step()

    @property
    def is_over(self) -> bool:
        """Whether no step is left to do."""
        return bool(self.control.should_training_stop or self.state.global_step >= self.steps)

    @property
    def place(self) -> tuple[int, int]:
        """The epoch, and the steps of it that are done."""
        return divmod(int(self.state.global_step), self.steps_per_epoch)

    def begin_step(self) -> None:
        """Tell callbacks that a step begins, and an epoch where one does."""
        if self.is_over:
            self.control.should_training_stop = True
            return
        if self.place[1] == 0 or self.state.global_step == self.first:
            self.control = self.callback_handler.on_epoch_begin(self.args, self.state, self.control)
        self.control = self.callback_handler.on_step_begin(self.args, self.state, self.control)

    def end_step(self, grad_norm: Any, count: Callable[[], None]) -> None:
        """Tell callbacks that a step is done, and do what is due then."""
        epoch, within = self.place
        in_epoch = len(self.loader)
        self.state.global_step += 1
        batches = min((within + 1) * self.args.gradient_accumulation_steps, in_epoch)
        self.state.epoch = epoch + batches / in_epoch
        if any(callback.looks(self.state) for callback in self.own if hasattr(callback, "looks")):
            self.synced()
        self.control = self.callback_handler.on_step_end(self.args, self.state, self.control)
        self._tell(epoch, grad_norm, count)
        if batches == in_epoch or self.control.should_training_stop:
            self.synced()
            self.control = self.callback_handler.on_epoch_end(self.args, self.state, self.control)
            self._tell(epoch, grad_norm, count)

    def _tell(self, epoch: int, grad_norm: Any, count: Callable[[], None]) -> None:
        self.control.should_save &= self.saves
        if not (self.control.should_log or self.control.should_evaluate or self.control.should_save):
            return
        count()
        norm = None if grad_norm is None or not self.control.should_log else float(grad_norm)
        rate = self.rate(self.state.global_step - 1)
        self._maybe_log_save_evaluate(
            self._tr_loss, norm, self.model, None, epoch, None, self.began, learning_rate=rate
        )

    def synced(self) -> None:
        """Let the model have the weights of the last step."""
        if self._synced != self.state.global_step:
            self.sync()
            self._synced = self.state.global_step

    def evaluate(self, *arguments: Any, **named: Any) -> dict[str, float]:
        """As ever, of the weights that the engine has now."""
        self.synced()
        return super().evaluate(*arguments, **named)

    def save_model(self, *arguments: Any, **named: Any) -> None:
        """The same."""
        self.synced()
        super().save_model(*arguments, **named)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        """What the engine needs to go on."""
        self.save_engine(Path(output_dir))


class Course:
    """What an engine tells its steps to, and what then logs, evaluates, saves and stops as the Trainer does.

    ::

        with training.course(sync, save) as course:
            for global_batch in training.global_batches():
                ...
                if course.step(loss, grad_norm=norm):
                    break
            return course.done()

    While it is entered, a signal is kept until the step is done, and then saves a checkpoint.
    """

    def __init__(
        self, trainer: CourseTrainer, sync: Callable[[], None], save: Callable[[Path], None] | None = None
    ) -> None:
        self._trainer, self._open = trainer, ExitStack()
        self._waiting: list[tuple[Any, dict[str, Any]]] = []
        trainer.sync, trainer.save_engine = sync, save or _nothing

    def __enter__(self) -> Course:
        self._open.enter_context(self._trainer.signals.signals)
        self._trainer.begin()
        return self

    def __exit__(self, *problem: Any) -> None:
        self._open.__exit__(*problem)

    @property
    def state(self) -> TrainerState:
        """The Trainer's: where the training stands, and its log."""
        return self._trainer.state

    def step(self, loss: Any, terms: Mapping[str, Any] | None = None, grad_norm: Any = None) -> bool:
        """One more step of the optimiser is done; whether training ends here.

        Args:
            loss: the weighted sum of the means over the global batch, as a number or what ``float`` makes one of. It
                is read only when something is told of it, so that a device need not be waited for.
            terms: the mean of each term that has a name, the same.
            grad_norm: of the gradient before clipping, the same; None where nobody knows.

        Raises:
            RunError: a figure is not finite.
        """
        if self._trainer.is_over:
            raise RuntimeError("a step after the last one: training ends where `step` says so")
        self._waiting.append((loss, dict(terms or {})))
        if len(self._waiting) >= WAITING:
            self._count()
        self._trainer.end_step(grad_norm, self._count)
        self._trainer.begin_step()
        return bool(self._trainer.control.should_training_stop)

    def done(self) -> Trained:
        """The result, once the last step is done.

        Raises:
            RunError: training ended before all steps were done.
            Interrupted: it was stopped by a signal, after saving a checkpoint.
            Stopped: by a signal that came too late for a checkpoint.
        """
        trainer, found = self._trainer, {}
        self._count()
        trainer.synced()
        samples = trainer.args.max_steps * trainer.get_total_train_batch_size(trainer.args)
        if trainer.args.max_steps <= 0:
            samples = len(trainer.train_dataset) * trainer.args.num_train_epochs
        found = trainer._finalize_training(None, samples, trainer.began).metrics
        return trained_by(trainer, trainer.own, found)

    def _count(self) -> None:
        """Read the losses of the steps since this was last done."""
        for loss, terms in self._waiting:
            value = torch.tensor(float(loss), dtype=torch.float64)
            self._trainer._tr_loss += value
            self._trainer.totals.add(value)
            self._trainer.means.begin_step()
            self._trainer.means.add({name: torch.tensor(float(term)) for name, term in terms.items()})
        self._waiting.clear()
