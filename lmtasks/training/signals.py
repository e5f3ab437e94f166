"""SIGINT and SIGTERM: where nothing would be lost they stop a run at once, during training between two steps."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import SaveStrategy

from lmtasks.config.world import World
from lmtasks.errors import Stopped

NUMBERS = (signal.SIGINT, signal.SIGTERM)


class Signals:
    """The signals that arrive while this is entered. The first raises :class:`Stopped`, or is kept; a second raises.

    Only the main thread can have signal handlers; elsewhere the caller keeps his own. A signal that is ignored, as
    SIGINT is in commands that a script starts in the background, stays so.

    Args:
        keep: whether the first one is kept in ``received`` for who asks.
    """

    def __init__(self, *, keep: bool = False) -> None:
        self.keep = keep
        self.received: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        _entered.append(self)
        self._process = os.getpid()
        if threading.current_thread() is threading.main_thread():
            asked = [number for number in NUMBERS if signal.getsignal(number) != signal.SIG_IGN]
            self._previous = {number: signal.signal(number, self._receive) for number in asked}
        return self

    def __exit__(self, *_: object) -> None:
        _entered.remove(self)
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: Any) -> None:
        if os.getpid() != self._process:  # a fork, such as a worker that its pool sends home
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
            return
        first, self.received = self.received is None, number
        if first and self.keep:
            return
        # Whoever asks once more, while all is being put down, does not want to wait for that either.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise Stopped(number)

    def counted(self) -> list[int]:
        """How often each of :data:`NUMBERS` was received, to be summed over processes."""
        return [int(self.received == number) for number in NUMBERS]

    def hear(self, counts: list[int]) -> bool:
        """Take what any process has received for received here, the same in all; whether there was anything."""
        heard = [number for number, count in zip(NUMBERS, counts, strict=True) if count]
        self.received = heard[-1] if heard else self.received
        return bool(heard)

    def agree(self) -> None:
        """Take what any process has received for received here; all of them have to be here."""
        everywhere = World.current(talking=True).gather(self.counted())
        self.hear([sum(counts) for counts in zip(*everywhere, strict=True)])


_entered: list[Signals] = []


def keeping() -> bool:
    """Whether a signal would be kept now for who asks, because training is going on."""
    return any(signals.keep for signals in _entered)


def ask_to_stop(number: int = signal.SIGTERM) -> bool:
    """Let the training that is going on in this process take a signal for received; whether there is any.

    For who works in another thread than the main one, where no signal arrives.
    """
    asked = [signals for signals in _entered if signals.keep]
    for signals in asked:
        signals.received = number
    return bool(asked)


class SignalCallback(TrainerCallback):
    """After a signal, ends the step with what is due after it, saves all that a resumption needs, and stops.

    Where several processes train together they must stop after the same step, though signals reach each at another
    time: they go by ``asked``, the counts that they have summed. ``saved`` is the step of the last checkpoint.
    """

    def __init__(self, signals: Signals) -> None:
        self.signals = signals
        self.asked: torch.Tensor | None = None
        self.saved = -1

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, *_: Any, **__: Any
    ) -> None:
        """Only between steps is there a state that can be resumed exactly."""
        if self._is_asked():
            # With these, the Trainer might save nothing after all, or not enough.
            args.save_strategy, args.save_only_model = SaveStrategy.STEPS, False
            control.should_save = control.should_training_stop = True

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, *rest: Any, **named: Any) -> None:
        """What arrived during an evaluation need not wait for another step."""
        if _alone():
            self.on_step_end(args, state, *rest, **named)

    def on_save(self, args: Any, state: TrainerState, control: TrainerControl, *_: Any, **__: Any) -> None:
        """Nor what arrived during the writing of a checkpoint, if that has all that a resumption needs."""
        if args.save_only_model:
            return
        self.saved = state.global_step
        if _alone() and self.signals.received is not None:
            control.should_training_stop = True

    def _is_asked(self) -> bool:
        if _alone():
            return self.signals.received is not None
        return self.asked is not None and self.signals.hear(self.asked.tolist())


def _alone() -> bool:
    """Whether no other process trains with this one."""
    return World.current(talking=True).size == 1
