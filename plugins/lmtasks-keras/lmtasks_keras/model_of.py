"""A transformers model as a Keras model: compiled, with the loss of its recipe, so that ``fit`` needs none.

model = lmtasks_keras.model("distilbert/distilroberta-base", batch_size=16)
model.compile(optimizer=keras.optimizers.AdamW(2e-5, weight_decay=0.01))
model.fit(lmtasks_keras.dataset(texts, model), epochs=3)
lmtasks_keras.save(model, "my-model")
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
from transformers import PreTrainedModel, Trainer

from lmtasks import InputError
from lmtasks.models.checkpoint import load_model
from lmtasks.models.companions import accompany
from lmtasks_keras.agreement import Agreement, DisagreementError, compare
from lmtasks_keras.backends import backend_for
from lmtasks_keras.batches import Constant, shapes_of
from lmtasks_keras.data import LanguageDataset
from lmtasks_keras.language_model import LanguageModel
from lmtasks_keras.layer import loss_layer
from lmtasks_keras.optimizer import AdamW
from lmtasks_keras.task import Task, task_of

LEARNING_RATE = 5e-5
"""Of a model that nobody has compiled; transformers' own default."""


def model(
    folder_or_run: str | Path | None = None, recipe: str | None = None, *, batch_size: int | None = None, **values: Any
) -> TransformersModel:
    """A compiled ``keras.Model`` of a model's folder, a run or a Hub id.

    It is compiled with AdamW and a constant learning rate; ``compile`` takes any other optimizer, and no loss. First of
    all, its loss and gradients on one batch are compared with torch's.

    Args:
        folder_or_run: None for a new model: ``recipe``, ``model_type`` and ``tokenizer_name`` say which.
        recipe: name of the recipe; that of the run, or the one that fits the model, when not given.
        batch_size: examples of every batch; that of the run, or 8, when not given.
        values: what :func:`lmtasks.run` takes about model and recipe, such as ``block_size``; a run's own when not
            given. ``seed`` is that of a new model's weights, of order and masks, and of dropout.

    Raises:
        InputError: no such model, one that Keras cannot train or not as torch does, or the backend is not installed.
    """
    backend_for(keras.config.backend())
    _require_float32()
    task = task_of(folder_or_run, recipe, batch_size, values)
    request = task.request
    loaded = load_model(request.model, request.recipe, task.config, task.processor, request.seed, task.added)
    accompany(loaded.model, request, training=True)
    found = _agreement(task, loaded.model)
    for name in found.idle:  # which torch's optimizers leave as they are, and Keras' would let decay
        loaded.model.get_parameter(name).requires_grad_(False)
    made = TransformersModel(task, loaded.model, found.terms)
    made.compile(optimizer=AdamW(LEARNING_RATE, weight_decay=0.0, epsilon=1e-8))
    return made


SAVE = "lmtasks_keras.save(model, FOLDER); or model.save_weights(FILE)"

_SIZE = "batch_size=N of lmtasks_keras.model, which is compiled for one shape"
_WEIGHTS = "leave it out; a recipe may give tokens weights"

MEANINGLESS = {"batch_size": _SIZE, "validation_batch_size": _SIZE, "class_weight": _WEIGHTS, "sample_weight": _WEIGHTS}
"""Arguments of Keras' methods that would change nothing here, with what to do instead."""


class TransformersModel(LanguageModel):
    """A transformers model whose weights Keras trains; :func:`model` makes one.

    Called with a batch it gives sums and numbers of targets; for logits and generation there is :meth:`pretrained`.

    Args:
        pretrained: on the CPU, in float32; the weights that training begins with.
        terms: the weight of each term of the loss by its name.
    """

    def __init__(self, task: Task, pretrained: PreTrainedModel, terms: Mapping[str, float]) -> None:
        super().__init__(loss_layer(pretrained, task.recipe, task.shapes), terms)
        self.layer.draw_from(task.request.seed, 0)
        self.apart = Apart(task, pretrained)

    @property
    def task(self) -> Task:
        """The recipe with its options, and what makes the inputs."""
        return self.apart.task

    @property
    def undecayed(self) -> list[Any]:
        """The variables that transformers lets no weight decay touch, for ``optimizer.exclude_from_weight_decay``."""
        decayed = Trainer.get_decay_parameter_names(None, self.apart.model)  # it asks nothing of a Trainer
        return [variable for name, variable in self.layer.named.items() if name not in decayed]

    @property
    def steps(self) -> int:
        """Optimiser steps since the model was compiled."""
        return int(self.optimizer.iterations)

    def pretrained(self) -> PreTrainedModel:
        """The transformers model with the weights as they are now, in evaluation mode."""
        self.layer.copy_to(self.apart.model)
        return self.apart.model.eval()

    def loss_of(self, batch: Constant) -> float:
        """The loss of a batch, without dropout."""
        self.reset_metrics()
        return float(self.test_on_batch(batch, return_dict=True)["loss"])

    def compile(self, optimizer: Any = "adamw", loss: Any = None, *, metrics: Any = None, **named: Any) -> None:
        """As Keras' own, without a loss.

        Raises:
            InputError: a loss or metrics are given, which would have to be of logits.
        """
        others = {name: named.get(name) for name in ("weighted_metrics", "loss_weights")}
        for name, value in {"loss": loss, "metrics": metrics, **others}.items():
            if value is not None:
                raise InputError(f"compile takes no {name} here: the recipe has its own", f"leave {name}= out")
        if keras.config.backend() == "tensorflow":  # it has JAX's compiled step; to compile that again takes a minute
            named.setdefault("jit_compile", False)
        super().compile(optimizer=optimizer, **named)

    def fit(self, x: Any = None, *arguments: Any, callbacks: Any = None, shuffle: bool = False, **named: Any) -> Any:
        """As Keras' own; the data have an order of their own in each epoch, so nothing else is shuffled.

        Raises:
            InputError: data of another task than the model's, or something that means nothing here.
        """
        _require_meant(keras.Model.fit, self, x, *arguments, **named)
        held_out = named.get("validation_data")
        for data in [x, held_out] if held_out is not None else [x]:
            self._require_own(data)
        self.apart.fitted_on, self.apart.held_out = x, held_out
        own = callbacks if isinstance(callbacks, list | tuple) else [callbacks] if callbacks else []
        for one in own:
            if isinstance(one, keras.callbacks.ModelCheckpoint) and not one.save_weights_only:
                raise _no_format("save_weights_only=True for the ModelCheckpoint, with a path that ends in .weights.h5")
        return super().fit(x, *arguments, callbacks=[Epochs(x), *own], shuffle=shuffle, **named)

    def evaluate(self, x: Any = None, *arguments: Any, **named: Any) -> Any:
        """As Keras' own: the loss over all targets of the data, in nats.

        Raises:
            InputError: data of another task than the model's, or something that means nothing here.
        """
        _require_meant(keras.Model.evaluate, self, x, *arguments, **named)
        self._require_own(x)
        return super().evaluate(x, *arguments, **named)

    def predict(self, *arguments: Any, **named: Any) -> Any:
        """Not there: a model under Keras gives its loss.

        Raises:
            InputError: always; says what gives predictions.
        """
        hint = (
            "model.pretrained() gives logits; or lmtasks_keras.save(model, FOLDER), and lmtasks.predict(FOLDER, TEXTS)"
        )
        raise InputError("a model under Keras gives its loss, and no predictions", hint)

    predict_on_batch = predict

    def save(self, *arguments: Any, **named: Any) -> None:
        """Not there: Keras' own format holds no transformers model.

        Raises:
            InputError: always; says what saves one.
        """
        raise _no_format(SAVE)

    export = save

    def get_config(self) -> dict[str, Any]:
        """Not there either; what clones, pickles or writes a model asks for it.

        Raises:
            InputError: always; says what saves one.
        """
        raise _no_format(f"{SAVE}; lmtasks_keras.model(FOLDER) once more makes another")

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: Any = True
    ) -> Any:
        """The loss of a batch over its targets, a scalar.

        Raises:
            InputError: examples are weighted, which no recipe does so.
        """
        if sample_weight is not None:
            raise InputError("sample_weight means nothing here: the recipe weighs", MEANINGLESS["sample_weight"])
        return super().compute_loss(x, y, y_pred, None, training)

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
        """The loss over all targets since the epoch began."""
        return {"loss": super().compute_metrics(x, y, y_pred, sample_weight)["loss"]}

    @property
    def metrics(self) -> list[keras.Metric]:
        """The loss alone; that of Keras would be a mean of the means of batches."""
        return [self.mean]

    def _require_own(self, data: Any) -> None:
        if not isinstance(data, LanguageDataset):
            raise InputError(
                f"this model learns from what lmtasks_keras.dataset() gives, and not from a {type(data).__name__}",
                "lmtasks_keras.dataset(TEXTS, model)",
            )
        data.require_for(self.task)


@dataclass
class Apart:
    """What Keras must not take for parts of the model, which it looks for in attributes, tuples, lists and dicts.

    Args:
        fitted_on, held_out: what ``fit`` got last.
        log: a line for the training and the evaluation of each epoch.
        epochs, seconds: in all calls of ``fit``.
    """

    task: Task
    model: PreTrainedModel
    fitted_on: LanguageDataset | None = None
    held_out: LanguageDataset | None = None
    log: list[dict[str, float]] = field(default_factory=list)
    epochs: int = 0
    seconds: float = 0.0


class Epochs(keras.callbacks.Callback):
    """The epochs of ``fit``: order, masks and dropout by their number, and a log of them."""

    def __init__(self, data: LanguageDataset) -> None:
        super().__init__()
        self.data = data

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Draw order, masks and dropout anew, by the epoch's number: ``initial_epoch`` goes on with the next.

        Weights that Keras saves do not hold how far dropout has come.
        """
        self.data.start_epoch(epoch)
        self.model.layer.draw_from(self.model.task.request.seed, epoch * len(self.data))
        self.began = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Note what the epoch came to."""
        apart = self.model.apart
        apart.epochs += 1
        apart.seconds += time.monotonic() - self.began
        at = {"step": self.model.steps, "epoch": float(epoch + 1)}
        for name, figure in (("loss", "loss"), ("eval_loss", "val_loss")):
            if figure in (logs or {}):
                apart.log.append({**at, name: float(logs[figure])})


def _require_meant(method: Callable[..., Any], *arguments: Any, **named: Any) -> None:
    """Refuse arguments of a method of Keras that mean nothing here."""
    for name, value in inspect.signature(method).bind(*arguments, **named).arguments.items():
        if name in MEANINGLESS and value is not None:
            raise InputError(f"{name} means nothing to this model", MEANINGLESS[name])


def _no_format(hint: str) -> InputError:
    return InputError("Keras' own format holds no transformers model", hint)


def _require_float32() -> None:
    """See that Keras is not asked for another precision, which the model would not have."""
    policy = keras.config.dtype_policy()
    for kind in (keras.config.floatx(), policy.compute_dtype, policy.variable_dtype):
        if kind != "float32":
            hint = 'keras.config.set_dtype_policy("float32"), and the same of keras.config.set_floatx'
            raise InputError(f"Keras is set to {kind}, and these models train in float32", hint)


def _agreement(task: Task, model: PreTrainedModel) -> Agreement:
    """What came of the comparison of loss and gradients with torch's.

    Raises:
        InputError: it cannot be traced, or they differ.
    """
    backend, rows = keras.config.backend(), len(task.sample["input_ids"]) + 1
    what = f"Keras on {backend} cannot train this {model.config.model_type} model for {task.recipe.name}"
    hint = "lmtasks run trains it" if backend == "torch" else "KERAS_BACKEND=torch, or lmtasks run"
    try:
        found = compare(model, task.recipe, task.sample, shapes_of(task.sample, rows), backend)
    except DisagreementError as error:
        raise InputError(f"{what}: {error}", hint) from error
    if not found.holds:
        far = f"its loss is off by {found.loss:.1e}, its gradients by {found.gradient:.1e}"
        raise InputError(f"{what}: {far} of torch's", hint)
    return found
