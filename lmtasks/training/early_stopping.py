"""An end of training where the model gets no better, that a resumed run comes to at the same step."""

from __future__ import annotations

from typing import Any

from transformers import EarlyStoppingCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class EarlyStop(EarlyStoppingCallback):
    """The EarlyStoppingCallback, which begins to count where the checkpoint has left off.

    Args:
        patience: evaluations without an improvement, after which training ends.
        threshold: by how much the metric must become better to count as improved.
    """

    def __init__(self, patience: int, threshold: float = 0.0) -> None:
        super().__init__(patience, threshold)
        self.ended_training = False

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Take up the count; stopped at the step of its checkpoint, a run trains no further."""
        # A checkpoint of before anybody asked for an early end has no count, and the Trainer expects one there.
        kept = state.stateful_callbacks.setdefault(type(self).__name__, self.state())
        attributes = kept.get("attributes", {}) if isinstance(kept, dict) else {}
        self.early_stopping_patience_counter = int(attributes.get("early_stopping_patience_counter", 0))
        self._stop_if_due(control)

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, *rest: Any, **named: Any
    ) -> None:
        """One more evaluation."""
        super().on_evaluate(args, state, control, *rest, **named)
        self._stop_if_due(control)

    def _stop_if_due(self, control: TrainerControl) -> None:
        if self.early_stopping_patience_counter >= self.early_stopping_patience:
            control.should_training_stop = self.ended_training = True


class CallbacksEnd(TrainerCallback):
    """A witness of a program's own callbacks, which stands behind them: an early end before it is theirs."""

    ended_training = False

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Look whether training stops, behind every event after which it can."""
        self.ended_training |= control.should_training_stop and state.global_step < state.max_steps

    on_epoch_end = on_evaluate = on_save = on_log = on_step_end
