"""Training with the transformers Trainer, and the one thing that it gets wrong: the division.

The Trainer divides a model's loss by whatever the model's signature suggests; for most masked
models that multiplies loss and gradients by the number of accumulated batches (transformers
issue 47688). Here the recipe's loss is a sum, and the sum is divided once, by the number of
targets in the whole global batch.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Sampler, SequentialSampler
from transformers import Trainer, TrainerControl, set_seed
from transformers.integrations import INTEGRATION_TO_CALLBACK
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from lmtasks.api import SOLE, Batch, Collate, Recipe, loss_terms, require_counted, target_counts, weigh
from lmtasks.artifacts.checkpoints import begin, read_manifest
from lmtasks.errors import RunError, first_line, nearest
from lmtasks.models.adapters import unwarned
from lmtasks.models.companions import apart, restore, save_companions
from lmtasks.training.callbacks import ResumeCallback
from lmtasks.training.evaluation import evaluate_model
from lmtasks.training.failures import Telling
from lmtasks.training.positions import Positions
from lmtasks.training.signals import SignalCallback, Signals
from lmtasks.training.speed import compile_body
from lmtasks.training.totals import Means, TotalsCallback

REPEATED = "repeated"
"""In a batch that has nothing new in it: it takes part in a step and counts for nothing."""


class RecipeTrainer(Trainer):
    """The Trainer, made with its own arguments, with a recipe's loss and lmtasks' evaluation."""

    def __init__(
        self, *arguments: Any, recipe: Recipe, eval_collate: Collate, signals: Signals | None = None, **named: Any
    ) -> None:
        super().__init__(*arguments, **named)
        self.data_collator: Collate = Telling(self.data_collator)
        self.recipe, self.eval_collate = recipe, eval_collate
        self.loss_is_scaled_for_ga = True  # see compute_loss
        # Of the trackers, which the Trainer would close too early, those of a run are among its callbacks.
        for kind in (PrinterCallback, ProgressCallback, *INTEGRATION_TO_CALLBACK.values()):
            self.remove_callback(kind)
        self.totals, self.signals = TotalsCallback(), SignalCallback(signals or Signals())
        self.terms: tuple[str, ...] = (SOLE,)
        self.means = Means()
        self.positions: Positions | None = None
        compile_body(self.model, self.args, self.accelerator)
        for callback in (ResumeCallback(), self.totals, self.signals):
            self.add_callback(callback)

    def _prepare_for_training(self, *arguments: Any) -> Any:
        """The model as it is trained, and its batches; accelerate cannot divide every model."""
        try:
            return super()._prepare_for_training(*arguments)
        except (AssertionError, AttributeError, KeyError, TypeError, ValueError) as error:
            if not self.args.fsdp:
                raise
            raise RunError(
                f"--fsdp cannot divide this {self.model.config.model_type}: {first_line(error)}",
                "leave --fsdp out, or say with --fsdp_config which of its layers to divide it by",
            ) from error

    def _get_train_sampler(self, *arguments: Any) -> Sampler[Any] | None:
        """Prepared examples come in an order of their own, by position: there is no list to be drawn."""
        if self.train_dataset.ordered:
            return SequentialSampler(self.train_dataset)
        sampler: Sampler[Any] | None = super()._get_train_sampler(*arguments)
        return sampler

    def get_train_dataloader(self) -> DataLoader[Any]:
        """The loader of the training examples; of prepared ones with batches that nobody has to count through."""
        loader: DataLoader[Any] = super().get_train_dataloader()
        if self.train_dataset.ordered:
            rank, size = self.accelerator.process_index, self.accelerator.num_processes
            own, drop_last = self._train_batch_size, self.args.dataloader_drop_last
            self.positions = Positions(len(self.train_dataset), own, rank, size, drop_last=drop_last)
            self.positions.put_into(loader)
        return loader

    def _init_training_state(self, *arguments: Any) -> tuple[int, int]:
        """Epochs that are done, and batches of the next one, which the Trainer counts and drops."""
        epochs, batches = super()._init_training_state(*arguments)
        if self.positions is not None:
            self.positions.leave_out(batches)
        return epochs, batches

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], torch.Tensor]:
        """The batches of one optimiser step, and the number of their targets in all processes, of each term.

        None where all steps are done, or where training had stopped: resumed there, the Trainer would look only
        after one more.
        """
        if self.state.global_step >= self.state.max_steps or self.control.should_training_stop:
            self.control.should_training_stop = True
            return [], torch.zeros((), device=device)
        batches = [self._without_repeats(batch) for batch in itertools.islice(epoch_iterator, num_batches)]
        counts = self._counts(batches)
        asked = self.signals.signals.counted()
        total = self.accelerator.reduce(torch.tensor([*counts, *asked], device=device), reduction="sum")
        self.signals.asked = total[len(counts) :]
        self.means.begin_step()
        return batches, total[: len(counts)]

    def _counts(self, batches: list[Batch]) -> list[int]:
        """How many targets the batches have, for each term, in the order of the first batch that there was."""
        counts = [(target_counts(self.recipe.targets(batch)), REPEATED in batch) for batch in batches]
        self.terms = tuple(counts[0][0]) if counts else self.terms
        return [sum(count[name] for count, repeated in counts if not repeated) for name in self.terms]

    def _without_repeats(self, batch: Batch) -> Batch:
        """The batch without the examples that another process, or an earlier step, already has.

        accelerate fills the last batches of an epoch with the first examples once more, so that all
        processes have equally many (``even_batches``). A single process has no such examples, and
        several must do what one does.
        """
        loading, processes = self.accelerator, self.accelerator.num_processes
        filled = loading.gradient_state.end_of_dataloader and loading.even_batches
        if processes == 1 or not filled or self.args.dataloader_drop_last:
            return batch
        rows = len(next(value for value in batch.values() if torch.is_tensor(value)))
        last = len(self.train_dataset) % (rows * processes)
        own = last - loading.process_index * rows
        if not last or own >= rows:
            return batch
        # One example stays, even if none is new: the others wait for this process's backward pass.
        first = {name: value[: max(1, own)] if torch.is_tensor(value) else value for name, value in batch.items()}
        return first if own > 0 else {**first, REPEATED: True}

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The batch's share of the mean over the global batch.

        Times the number of processes, because data parallelism averages their gradients. The Trainer's
        own label smoothing is in the method that this one replaces: only the recipe's loss smooths.
        """
        if self.args.label_smoothing_factor:
            inputs = {**inputs, "label_smoothing": self.args.label_smoothing_factor}
        repeated = inputs.get(REPEATED, False)
        batch = {name: value for name, value in inputs.items() if name != REPEATED}
        terms, _ = loss_terms(self.recipe.loss(model, batch))
        assert num_items_in_batch is not None  # get_batch_samples counts
        # A global batch without any target has nothing to teach: zero, not a division by zero.
        counts = dict(zip(self.terms, num_items_in_batch.clamp(min=1), strict=True))
        require_counted(self.recipe.name, terms, counts)
        shares = {name: term.sum / counts[name] * self.accelerator.num_processes for name, term in terms.items()}
        if repeated:
            shares = {name: share * 0 for name, share in shares.items()}
        self.means.add(shares)
        return weigh(terms, shares)

    def training_step(self, *arguments: Any, **named: Any) -> torch.Tensor:
        """A batch forwards and backwards; its loss counts among those of the run."""
        loss: torch.Tensor = super().training_step(*arguments, **named)
        self.totals.add(loss)
        return loss

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """The Trainer's estimate, for which it would count the weights in every step."""
        name = getattr(self.model, "main_input_name", "input_ids")
        return self._of_a_token * inputs[name].numel() if name in inputs else 0

    @cached_property
    def _of_a_token(self) -> int:
        name = getattr(self.model, "main_input_name", "input_ids")
        return int(super().floating_point_ops({name: torch.zeros(1)}))

    def save_model(self, output_dir: str | None = None, *arguments: Any, **named: Any) -> None:
        """The model, and in the state, which the Trainer saves next, what a resumed run has to know."""
        self.totals.keep(self.state)
        assert output_dir is not None  # the Trainer saves checkpoints only
        if self.args.should_save:
            begin(Path(output_dir))
        self.accelerator.wait_for_everyone()  # before another process writes its part
        with apart(self.model), unwarned():
            super().save_model(output_dir, *arguments, **named)
        if self.args.should_save:
            save_companions(self.model, self.recipe, Path(output_dir))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """The weights of a checkpoint, with those of what stands beside the model."""
        plain = partial(super()._load_from_checkpoint, resume_from_checkpoint, model)
        restore(self.model, self.recipe, resume_from_checkpoint, plain)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """What each process would draw next; of another number of processes, drawn anew, alike every time."""
        manifest = (checkpoint and read_manifest(Path(checkpoint))) or {}
        if manifest.get("processes", self.args.world_size) == self.args.world_size:
            super()._load_rng_state(checkpoint)
        else:
            # The step, too: else what was drawn at the beginning would be drawn once more.
            set_seed((self.args.seed + self.state.global_step) % 2**32)

    def _load_best_model(self) -> None:
        best = self.state.best_model_checkpoint
        assert best is not None  # else the Trainer does not ask
        restore(self.model, self.recipe, best, super()._load_best_model)

    def log(self, logs: dict[str, Any], *arguments: Any) -> None:
        """The last line is of the whole run, also where the Trainer has made only its last steps."""
        if "loss" in logs:
            logs |= self.means.take(self.accelerator)
        if "train_loss" in logs:
            planned = self.args.max_steps * self.get_total_train_batch_size(self.args)
            whole = planned if self.args.max_steps > 0 else len(self.train_dataset) * self.args.num_train_epochs
            steps = self.state.global_step
            self.totals.complete(logs, steps, whole * steps / max(1, self.state.max_steps))
        super().log(logs, *arguments)

    def evaluate(self, *_: Any, metric_key_prefix: str = "eval", **__: Any) -> dict[str, float]:
        """lmtasks' figures of each evaluation set, under the names that the Trainer's users know."""
        sets = self.eval_dataset if isinstance(self.eval_dataset, dict) else {"": self.eval_dataset}
        figures: dict[str, dict[str, float]] = {
            name: evaluate_model(self.model, self.recipe, dataset, self.eval_collate, self.args.eval_batch_size)
            for name, dataset in sets.items()
        }
        # The first set's under the plain names, too: what looks for the best model finds eval_loss there. All at once,
        # since each report counts as an evaluation to callbacks that stop early.
        named = {"": next(iter(figures.values())), **figures}
        metrics = {
            "_".join(filter(None, (metric_key_prefix, name, figure))): value
            for name, own in named.items()
            for figure, value in own.items()
        }
        self._require_best(metrics)
        self.log(metrics)
        self.control: TrainerControl = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _require_best(self, metrics: dict[str, float]) -> None:
        """Refuse to choose the best model by a figure that there is not."""
        wanted = self.args.metric_for_best_model
        if wanted and f"eval_{wanted.removeprefix('eval_')}" not in metrics:
            known = [name.removeprefix("eval_") for name in metrics]
            raise RunError(
                f"--metric_for_best_model {wanted} is no figure of the evaluation{nearest(wanted, known)}",
                f"one of {', '.join(known)}",
            )
