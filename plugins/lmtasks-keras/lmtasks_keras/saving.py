"""A model that Keras has trained as a folder like that of any run.

It loads with transformers, and lmtasks evaluates, asks and publishes it.
"""

from __future__ import annotations

import json
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import keras
import numpy as np
import torch
from transformers import PreTrainedModel, TrainerState

from lmtasks import EVALUATION_SEED, InputError, RunError, Trained, load_catalog
from lmtasks.api import weighted_mean
from lmtasks.artifacts.durable import write_text
from lmtasks.artifacts.failures import machine_failures
from lmtasks.artifacts.lock import reserved
from lmtasks.artifacts.run_folder import LOG, clear, is_bare, read_record, require_space, require_writable, save_into
from lmtasks.config.request import as_record
from lmtasks.models.companions import Whole
from lmtasks.models.forward import in_mode
from lmtasks.models.saved import saved_model
from lmtasks.progress import quietly
from lmtasks.runs.excerpts import example_prompt
from lmtasks.runs.figures import figures_of
from lmtasks.runs.record import facts_of_recipe, write_record
from lmtasks.runs.results import save_results
from lmtasks.runs.versions import versions
from lmtasks_keras.model_of import TransformersModel

ENGINE = "keras"
"""What a record names as having trained the model."""

NEAR = 1e-4
"""By what share the loss of the same weights may differ between Keras and torch, which add in another order."""


@machine_failures()
@quietly()
def save(model: TransformersModel, folder: str | Path, *, measure: bool = True) -> Path:
    """The folder, with the model as transformers has it, its tokenizer, a record and a card.

    What ``fit`` got as ``validation_data`` is the text held out, whose figures are in the record and on the card, as
    :func:`lmtasks.evaluate` tells them. What this has saved in the folder before is replaced.

    Args:
        model: from :func:`lmtasks_keras.model`.
        measure: whether to measure these figures; otherwise there is the loss of the last epoch, and no other.

    Raises:
        InputError: no such model, or a folder that holds something else.
        RunError: what was saved does not have the loss that the model has under Keras.
    """
    if not isinstance(model, TransformersModel):
        raise InputError(f"a {type(model).__name__} cannot be saved here", "give what lmtasks_keras.model() made")
    folder = Path(folder)
    require_place(folder)
    pretrained = model.pretrained()
    require_space(folder, 2 * sum(parameter.nbytes for parameter in pretrained.parameters()))
    record, trained = _record(model, pretrained), _trained(model, pretrained)
    with reserved(folder):
        clear(folder)
        write_record(folder, record)
        record["files"] = save_into(folder, Whole(pretrained, model.task.recipe), model.task.processor)
        _verify(model, pretrained, folder)
        write_text(folder / LOG, "".join(f"{json.dumps(line)}\n" for line in trained.state.log_history))
        held_out = model.apart.held_out if measure else None
        figures = _measured(model, pretrained) if held_out else _last_evaluation(model)
        save_results(folder, held_out and held_out.data, record, trained, figures)
    return folder


def require_place(folder: Path) -> None:
    """Refuse a folder that holds anything but what was saved there before."""
    require_writable(folder)
    if is_bare(folder):
        return
    record = read_record(folder)
    # A run of the command line, on whatever engine, says what was asked of it.
    if record is None or record.get("engine") != ENGINE or "request" in record:
        raise InputError(f"'{folder}' holds something else", "choose a new folder")


def _verify(model: TransformersModel, pretrained: PreTrainedModel, folder: Path) -> None:
    """Load what was saved, and see that torch finds the loss that Keras has, on an example."""
    task = model.task
    saved = saved_model(pretrained, task.request, folder)
    batch = {name: torch.from_numpy(value) for name, value in task.example.items()}
    batch = {name: value if value.is_floating_point() else value.long() for name, value in batch.items()}
    with in_mode(saved), torch.no_grad():
        theirs = weighted_mean(task.recipe.loss(saved, batch))
    ours = model.loss_of(task.example)
    if abs(ours - theirs) > NEAR * max(abs(ours), 1.0):
        raise RunError(
            f"the model saved in '{folder}' is not the one that Keras has: loss {theirs:.5f} instead of {ours:.5f}",
            "do not use it. Please report this",
        )


def _measured(model: TransformersModel, pretrained: PreTrainedModel) -> dict[str, float]:
    """The figures of the model on the text held out, by torch."""
    held_out = model.apart.held_out
    assert held_out is not None
    return figures_of(pretrained, held_out.data.request, model.task.processor, {"": held_out.examples})


def _last_evaluation(model: TransformersModel) -> dict[str, float]:
    """The loss on the text held out that the last epoch ended with; nothing where there was none."""
    losses = [line["eval_loss"] for line in model.apart.log if "eval_loss" in line] if model.apart.held_out else []
    return {"eval_loss": losses[-1]} if losses else {}


def _trained(model: TransformersModel, pretrained: PreTrainedModel) -> Trained:
    """What ``fit`` has done, as the core tells it of any training."""
    steps, log = model.steps, model.apart.log
    losses = [line["loss"] for line in log if "loss" in line]
    figures = {"train_loss": losses[-1]} if losses else {}
    state = TrainerState(global_step=steps, max_steps=steps, log_history=log)
    return Trained(pretrained, {**figures, "train_runtime": model.apart.seconds}, state)


def _record(model: TransformersModel, pretrained: PreTrainedModel) -> dict[str, Any]:
    """``run.json`` before the figures are known."""
    task, apart = model.task, model.apart
    request = task.request
    fitted, held_out = apart.fitted_on, apart.held_out
    told = held_out or fitted
    named = {"keras": keras.__version__, "lmtasks-keras": metadata.version("lmtasks-keras")}
    return {
        **facts_of_recipe(request, load_catalog()),
        "engine": ENGINE,
        "base_model": request.model.model_name_or_path,
        "model_type": pretrained.config.model_type,
        "parameters": pretrained.num_parameters(),
        "trained_parameters": pretrained.num_parameters(only_trainable=True),
        "data": {
            "source": fitted.data.corpus.source if fitted else None,
            "medium": "text",
            "train": fitted.examples.sizes() if fitted else {},
            "evaluation": held_out.examples.sizes() if held_out else {},
        },
        **as_record(request),
        "training": _settings(model),
        "seeds": {"seed": fitted.seed if fitted else request.seed, "evaluation": EVALUATION_SEED},
        "versions": {**versions(), **named},
        "example": (example_prompt(told.data) if told else None) or request.recipe.example,
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _settings(model: TransformersModel) -> dict[str, Any]:
    """How the model was trained, as far as Keras knows."""
    optimizer = model.optimizer
    rate = optimizer.get_config()["learning_rate"]
    return {
        "optimizer": type(optimizer).__name__,
        "learning_rate": float(str(np.float32(optimizer.learning_rate))),  # 0.005, not 0.004999999888
        **({"learning_rate_schedule": rate["class_name"]} if isinstance(rate, dict) else {}),
        "weight_decay": optimizer.weight_decay or 0.0,
        "num_train_epochs": model.apart.epochs,
        "max_steps": model.steps,
        "per_device_train_batch_size": model.task.batch_size,
        "keras_backend": keras.config.backend(),
    }
