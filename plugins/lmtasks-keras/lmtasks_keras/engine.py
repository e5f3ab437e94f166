"""The engine as the core calls it: what Keras cannot train is refused early, the rest is trained."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, takewhile
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from transformers import TrainerCallback, TrainerState, TrainingArguments

from lmtasks import GlobalBatch, InputError, Trained, Training
from lmtasks.api import Batch
from lmtasks_keras.agreement import Agreement
from lmtasks_keras.backends import backend_for
from lmtasks_keras.batches import Shapes, shapes_of, step_batches
from lmtasks_keras.fitting import Fit, fit, rehearse
from lmtasks_keras.optimizer_state import require_backend
from lmtasks_keras.process import KerasProcess

_rehearsed: WeakKeyDictionary[torch.nn.Module, tuple[KerasProcess, Agreement]] = WeakKeyDictionary()
"""Processes in which models were compared, from the check of a training until it begins, and what came of that."""


def check(training: Training, options: Any) -> None:
    """Refuse what Keras would not train, or train otherwise than torch.

    Raises:
        InputError: something is not installed, the recipe or the model is none for Keras, or the two disagree.
    """
    backend = backend_for(options.backend)
    _require_plain(training)
    if training.checkpoint is not None:
        require_backend(training.checkpoint, backend)
    _rehearsed[training.model] = _rehearse(training, options, backend)


def train(training: Training, options: Any) -> Trained:
    """Train the model in place.

    Raises:
        RunError: Keras' process has died, or what every engine may raise.
    """
    backend = backend_for(options.backend)
    if training.checkpoint is not None:
        require_backend(training.checkpoint, backend)
    process, agreement = _rehearsed.pop(training.model, None) or _rehearse(training, options, backend)
    sample = _sample(training)
    shapes = shapes_of(sample, training.arguments.train_batch_size)
    work = _work(training, options, agreement, sample, shapes)
    ending = _Ending()
    training = replace(training, callbacks=[*training.callbacks, ending])
    with process:
        process.call(fit, work)
        return _carried_out(training, process, work, ending)


def _carried_out(training: Training, process: KerasProcess, work: Fit, ending: _Ending) -> Trained:
    """The result of a training whose steps the process makes."""

    def sync() -> None:
        process.send("weights")
        parameters = dict(training.model.named_parameters())
        with torch.no_grad():
            for name, value in process.receive().items():
                parameters[name].copy_(torch.from_numpy(value))

    def save(folder: Path) -> None:
        process.send("save", folder)
        process.receive()

    names, padding = [*work.terms], _padding(training)

    def batches() -> Iterator[Any]:
        for step in training.global_batches():
            yield _as_fed(step, names, work.shapes, padding, work.batches)

    with training.course(sync, save) as course:
        stopped = False
        for kind, *told in process.heard(batches()):
            if kind == "ended":
                ending.ended_training = not stopped and course.state.global_step < work.steps
                sync()  # what callbacks did to the weights at the end counts, too
                process.send("stop")
                return course.done()
            loss, terms, norm = told
            stopped = course.step(loss, terms, norm)
            process.send("stop" if stopped else "go", _evaluated(course.state))
    raise AssertionError("the process tells of its end")


def _evaluated(state: TrainerState) -> float | None:
    """The loss of the evaluation after the last step, if there was one."""
    now = takewhile(lambda line: line["step"] == state.global_step, reversed(state.log_history))
    return next((line["eval_loss"] for line in now if "eval_loss" in line), None)


class _Ending(TrainerCallback):  # type: ignore[misc]
    """Says that training had a right to end before its last step: a callback of Keras has asked for it."""

    ended_training = False


def _rehearse(training: Training, options: Any, backend: str) -> tuple[KerasProcess, Agreement]:
    """A process of Keras, and what came there of a comparison with torch on the longest example and the shortest."""
    batch = _sample(training)
    shapes = shapes_of(batch, len(next(iter(batch.values()))) + 1)
    asked = training.arguments
    process = KerasProcess(backend)
    how = options, _settings(asked), asked.eval_strategy != "no", asked.label_smoothing_factor
    process.call(rehearse, _on_cpu(training.model), training.recipe, batch, shapes, *how)
    found: Agreement = process.receive()
    return process, found


def _require_plain(training: Training) -> None:
    """See that the model stays between steps what it is, and is in float32."""
    if training.before_step is not None:
        raise InputError(
            f"{training.recipe.name} changes its model before each step, which Keras would not see",
            "leave --engine keras out",
        )
    kinds = {value.dtype for value in training.model.parameters() if value.requires_grad} - {torch.float32}
    if kinds:
        name = str(min(kinds, key=str)).removeprefix("torch.")
        raise InputError(f"--engine keras trains in float32, and the model is in {name}", "--dtype float32")


def _sample(training: Training) -> Batch:
    """A batch of the longest example and the shortest."""
    dataset, order = training.train_dataset, training.train_dataset.examples.longest_first()
    first = next(order)
    last = deque(chain([first], order), maxlen=1)[0]
    batch = training.collates[0]([dataset[first], dataset[last]])
    return {name: value.cpu() for name, value in batch.items()}


def _work(training: Training, options: Any, agreement: Agreement, sample: Batch, shapes: Shapes) -> Fit:
    arguments = training.arguments
    return Fit(
        model=_on_cpu(training.model),
        recipe=training.recipe,
        shapes=shapes,
        floating=frozenset(name for name, value in sample.items() if value.is_floating_point()),
        terms=agreement.terms,
        fixed=agreement.idle,
        undecayed=training.undecayed,
        rates=[training.rate(step) for step in range(training.steps)],
        settings=_settings(arguments),
        label_smoothing=arguments.label_smoothing_factor,
        optimizer=options.optimizer,
        callbacks=tuple(options.callback or ()),
        seed=arguments.seed,
        batches=arguments.gradient_accumulation_steps,
        steps=training.steps,
        steps_per_epoch=training.steps_per_epoch,
        done=training.done,
        state=training.checkpoint,
    )


def _settings(arguments: TrainingArguments) -> dict[str, Any]:
    """What the optimiser is made with beside its rates."""
    batches = arguments.gradient_accumulation_steps
    return {
        "weight_decay": arguments.weight_decay,
        "beta_1": arguments.adam_beta1,
        "beta_2": arguments.adam_beta2,
        "epsilon": arguments.adam_epsilon,
        "global_clipnorm": arguments.max_grad_norm or None,
        "gradient_accumulation_steps": batches if batches > 1 else None,
    }


def _as_fed(step: GlobalBatch, terms: list[str], shapes: Shapes, padding: int, number: int) -> list[Any]:
    """The batches of a step, each with what the sums of its terms are divided by, float32 [terms].

    Keras takes the mean of the gradients of accumulated batches, so that is the number of targets over that of batches.
    """
    divisors = np.asarray([step.counts[name] / number for name in terms], dtype=np.float32)
    on_cpu = tuple({name: value.cpu() for name, value in batch.items()} for batch in step.batches)
    return [(batch, divisors) for batch in step_batches(on_cpu, shapes, padding, number)]


def _padding(training: Training) -> int:
    return int(getattr(training.model.config, "pad_token_id", None) or 0)


def _on_cpu(model: torch.nn.Module) -> torch.nn.Module:
    """The model, or a copy of one that is on another device."""
    return model if next(model.parameters()).device.type == "cpu" else copy.deepcopy(model).cpu()
