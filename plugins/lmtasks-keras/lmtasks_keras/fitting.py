"""``fit`` in the process of its own: batches come from the run, and each step is told to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from transformers import set_seed

from lmtasks import InputError
from lmtasks.api import Batch, Recipe
from lmtasks.models.architectures import keep_padding_empty
from lmtasks_keras.batches import Shapes
from lmtasks_keras.own_parts import factory_named, made_by


@dataclass(frozen=True)
class Fit:
    """All that ``fit`` needs, as the run sends it.

    Args:
        model: on the CPU, in float32.
        shapes: of every batch.
        floating: names of what is no whole number in a batch.
        terms: the weight of each term of the loss by its name.
        fixed: names of parameters that are not trained beside those that the model says.
        undecayed: names of parameters that weight decay leaves alone.
        rates: the learning rate of each step.
        settings: what the optimiser is made with beside.
        optimizer, callbacks: as the options have them.
        seed: of dropout.
        batches: that make a step.
        steps, steps_per_epoch, done: of the run, of an epoch, and those that were done before.
        state: folder of the checkpoint to go on from.
    """

    model: torch.nn.Module
    recipe: Recipe
    shapes: Shapes
    floating: frozenset[str]
    terms: Mapping[str, float]
    fixed: frozenset[str]
    undecayed: frozenset[str]
    rates: Sequence[float]
    settings: Mapping[str, Any]
    label_smoothing: float
    optimizer: str | None
    callbacks: Sequence[str]
    seed: int
    batches: int
    steps: int
    steps_per_epoch: int
    done: int
    state: Path | None


def fit(steps: Connection, batches: Connection, work: Fit) -> None:
    """Train by ``keras.Model.fit``.

    Args:
        steps: to the run, which is told of each, and says how to go on.
        batches: to the run, which is asked for them.
    """
    from lmtasks_keras.feeding import Course, WholeTraining, dataset, source
    from lmtasks_keras.optimizer_state import load

    _seed(work.seed)
    net = language_model(work)
    own = callbacks(work.callbacks)
    if work.state is not None:
        load(net.optimizer, work.state)
    net.layer.draw_from(work.seed, work.done * work.batches)
    course = Course(steps, work.batches)
    all_of_them = WholeTraining(
        [course, *own], add_history=True, model=net, epochs=-(-work.steps // work.steps_per_epoch)
    )
    for epochs, each in parts(work.done, work.steps, work.steps_per_epoch):
        number = each * work.batches
        given = dataset(source(batches, number * len(epochs)), work.shapes, [*work.terms], work.floating)
        net.fit(
            given,
            initial_epoch=epochs.start,
            epochs=epochs.stop,
            steps_per_epoch=number,
            verbose=0,
            callbacks=all_of_them,
        )
        if net.stop_training:
            break
    all_of_them.end()
    steps.send(("ended",))
    course.serve()


def _seed(seed: int) -> None:
    """Seed what factories and callbacks may draw from; Keras' own function imports TensorFlow wherever that is."""
    import keras

    set_seed(seed % 2**32)
    if keras.backend.backend() == "tensorflow":
        keras.utils.set_random_seed(seed % 2**32)


def parts(done: int, steps: int, per_epoch: int) -> Iterator[tuple[range, int]]:
    """The epochs of a training, and the steps of each: whole ones together, and apart those begun before or not ended.

    Args:
        done: steps that were done before.
        steps: at which training ends.
    """
    while done < steps:
        epoch, within = divmod(done, per_epoch)
        whole = (steps - done) // per_epoch if not within else 0
        epochs, each = (whole, per_epoch) if whole else (1, min(per_epoch - within, steps - done))
        yield range(epoch, epoch + epochs), each
        done += epochs * each


def rehearse(
    steps: Connection,
    batches: Connection,
    model: torch.nn.Module,
    recipe: Recipe,
    batch: Batch,
    shapes: Shapes,
    options: Any,
    settings: Mapping[str, Any],
    evaluates: bool,
    label_smoothing: float,
) -> None:
    """Tell the run what :func:`lmtasks_keras.agreement.compare` finds, once the options have been tried.

    Raises:
        InputError: it finds that Keras would not train this, or an option is wrong.
    """
    import keras

    from lmtasks_keras.agreement import DisagreementError, compare
    from lmtasks_keras.optimizer import optimizer

    backend = keras.backend.backend()
    keep_padding_empty(model)
    optimizer(options.optimizer, undecayed=[], learning_rate=1e-3, **settings)
    for reference, one in zip(options.callback or (), callbacks(options.callback or ()), strict=True):
        require_useful(reference, one, evaluates)
    what = f"{recipe.name} cannot train this {model.config.model_type} model by Keras on {backend}"
    hint = "--engine trainer" if backend == "torch" else "--keras.backend torch, or --engine trainer"
    try:
        with compiled_quickly(backend):
            found = compare(model, recipe, batch, shapes, backend, label_smoothing)
    except DisagreementError as error:
        raise InputError(f"{what}: {error}", hint) from error
    if not found.holds:
        far = f"its loss is off by {found.loss:.1e}, its gradients by {found.gradient:.1e}"
        raise InputError(f"{what}: {far} of torch's", hint)
    steps.send(found)


@contextmanager
def compiled_quickly(backend: str) -> Iterator[None]:
    """While this is open, JAX spends little time on compiling: what is computed once need not be computed fast."""
    if backend == "torch":
        yield
        return
    import jax

    jax.config.update("jax_disable_most_optimizations", True)
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", False)


def language_model(work: Fit) -> Any:
    """The compiled Keras model."""
    import keras

    from lmtasks_keras.language_model import LanguageModel
    from lmtasks_keras.layer import loss_layer
    from lmtasks_keras.optimizer import optimizer
    from lmtasks_keras.schedule import Rates

    keep_padding_empty(work.model)
    for name, parameter in work.model.named_parameters():
        if name in work.fixed:
            parameter.requires_grad_(False)
    layer = loss_layer(work.model, work.recipe, work.shapes, work.label_smoothing)
    net = LanguageModel(layer, work.terms, work.batches)
    made = optimizer(
        work.optimizer,
        undecayed=[variable for name, variable in layer.named.items() if name in work.undecayed],
        learning_rate=Rates(work.rates, work.batches),
        **work.settings,
    )
    # TensorFlow has the step of JAX compiled already; once more takes a minute, and gains nothing.
    net.compile(optimizer=made, jit_compile=False if keras.backend.backend() == "tensorflow" else "auto")
    made.build(net.trainable_variables)
    return net


def callbacks(references: Sequence[str]) -> list[Any]:
    """The user's callbacks.

    Raises:
        InputError: one cannot be imported or made, or is none.
    """
    import keras

    flag = "--keras.callback"
    return [made_by(flag, one, factory_named(flag, one), keras.callbacks.Callback, {}) for one in references]


def require_useful(reference: str, callback: Any, evaluates: bool) -> None:
    """Refuse a callback that would wait for a figure that never comes, or that fails in the middle of training.

    Args:
        evaluates: whether the run is evaluated during training.
    """
    import keras

    what = f"--keras.callback {reference}"
    saves = isinstance(callback, keras.callbacks.ModelCheckpoint)
    if saves and not callback.save_weights_only:
        hint = "save_weights_only=True, with a path that ends in .weights.h5; or --save_steps, for checkpoints"
        raise InputError(f"{what}: Keras' own format holds no transformers model", hint)
    if isinstance(callback, keras.callbacks.BackupAndRestore):
        raise InputError(f"{what}: a run makes checkpoints of its own", "--resume_from_checkpoint true goes on")
    if isinstance(callback, keras.callbacks.SwapEMAWeights):
        hint = "leave it out; model.fit of lmtasks_keras takes it"
        raise InputError(f"{what}: no optimizer of a run averages weights", hint)
    if isinstance(callback, keras.callbacks.LearningRateScheduler | keras.callbacks.ReduceLROnPlateau):
        raise InputError(f"{what}: the learning rate of each step is the run's", "--lr_scheduler_type, --learning_rate")
    watched = None if saves and not callback.save_best_only else getattr(callback, "monitor", None)
    if watched == "val_loss" and not evaluates:
        raise InputError(f"{what} watches val_loss, and training is not evaluated", "--eval_strategy epoch")
    if watched and watched != "val_loss" and not watched.startswith(("loss", "step_loss")):
        raise InputError(f"{what} watches {watched}, which is not there", "monitor loss, step_loss or val_loss")
