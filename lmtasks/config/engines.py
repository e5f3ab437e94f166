"""The engine of a request, and what it cannot carry out: refused where somebody asked for it, left out where not."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from lmtasks.api import Engine, Recipe
from lmtasks.config.world import World
from lmtasks.errors import InputError

EVERYWHERE = frozenset({
    "per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps", "num_train_epochs",
    "max_steps", "learning_rate", "lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps", "seed", "data_seed",
    "use_cpu", "dataloader_drop_last", "dataloader_in_order", "dataloader_multiprocessing_context",
    "dataloader_num_workers", "dataloader_persistent_workers", "dataloader_pin_memory", "dataloader_prefetch_factor",
    "train_sampling_strategy", "length_column_name", "eval_strategy", "eval_steps", "eval_delay", "eval_on_start",
    "eval_accumulation_steps", "eval_do_concat_batches", "eval_use_gather_object", "metric_for_best_model",
    "greater_is_better", "logging_strategy", "logging_steps", "logging_first_step", "log_level", "log_level_replica",
    "log_on_each_node", "disable_tqdm", "report_to", "run_name", "project", "trackio_space_id", "trackio_bucket_id",
    "trackio_static_space_id", "do_train", "do_eval", "do_predict",
})  # fmt: skip
"""Training arguments that the core carries out for every engine."""

SAVING = frozenset({
    "save_strategy", "save_steps", "save_total_limit", "save_only_model", "save_on_each_node", "load_best_model_at_end",
    "restore_callback_states_from_checkpoint",
})  # fmt: skip
"""Those about checkpoints: the same for every engine that can go on from its own."""

IDLE: Mapping[str, Any] = {"max_grad_norm": 0.0, "bf16": False}
"""Training arguments that do something where nobody sets them, with what does nothing."""


WATCHING = ("reduce_lr_on_plateau", "greedy")
"""Schedules of the learning rate that go by a figure of the evaluation, so that no step alone tells their rate."""


def honours(engine: Engine | None, argument: str) -> bool:
    """Whether a training argument is carried out where this engine trains; None: the Trainer."""
    if engine is None or engine.honours(argument) or argument in EVERYWHERE:
        return True
    return engine.resumes and argument in SAVING


def chosen_engine(recipe: Recipe, name: str, parts: Mapping[str, Mapping[str, Any]]) -> Engine | None:
    """The engine of that name; None where the recipe is of no catalog.

    Args:
        parts: what was given, by group.

    Raises:
        InputError: there is none, or an option of another is given.
    """
    if not recipe.engines:
        return None
    engine = recipe.engines[name]
    for other in recipe.engines.values():
        for option in parts.get(f"engine {other.name}", ()) if other is not engine else ():
            missing = f"--engine {other.name}"
            raise InputError(f"--{option} means nothing without {missing}", f"add {missing}, or leave --{option} out")
    return engine


def misfits(
    engine: Engine, training: Mapping[str, Any], given: Collection[str], resume: bool | str | None
) -> Iterator[InputError]:
    """What was asked for and the engine cannot carry out.

    Args:
        training: training arguments that are set, by name.
        given: names that somebody set himself.
        resume: the value of ``--resume_from_checkpoint``.
    """
    other = "--engine trainer does"
    for name, value in training.items():
        off = str(value).lower() in ("no", "false", "none") or value == IDLE.get(name)
        if name not in given or off or honours(engine, name):
            continue
        why = "makes no checkpoints" if name in SAVING else "knows nothing of it"
        yield InputError(f"--{name}: the engine {engine.name} {why}", f"leave --{name} out, or {other}")
    schedule = training.get("lr_scheduler_type")
    if schedule in WATCHING and engine.arguments is not None:
        told = f"--lr_scheduler_type {schedule} goes by evaluations, and the engine {engine.name} by steps"
        yield InputError(told, f"another schedule; {other}")
    # Where there is nothing to go on from, `auto` begins.
    if resume and resume != "auto" and not engine.resumes:
        told = f"--resume_from_checkpoint: the engine {engine.name} cannot go on from a checkpoint"
        yield InputError(told, f"--overwrite_output_dir starts again; {other}")


def require_processes(engine: Engine, processes: int | None = None) -> None:
    """Refuse to let several processes share a run, where the engine knows of one only.

    Args:
        processes: how many they are to be; those that there are when not given.

    Raises:
        InputError: so it is.
    """
    processes = World.current().size if processes is None else processes
    if processes > 1 and not engine.processes:
        told = f"the engine {engine.name} trains in one process, and here are {processes}"
        raise InputError(told, "start one, or --engine trainer divides the work")


def notes_on_engine(engine: Engine) -> Iterator[str]:
    """What a run does without, that people expect of one."""
    if not honours(engine, "max_grad_norm"):
        yield f"the engine {engine.name} clips no gradients"
    if not engine.resumes:
        yield f"no checkpoints: the engine {engine.name} cannot go on from one"


def fitted_to(engine: Engine, training: Mapping[str, Any]) -> dict[str, Any]:
    """The training arguments without those that would say of the run what the engine does not do."""
    idle = {name: value for name, value in IDLE.items() if not honours(engine, name)}
    return {**training, **idle, **({} if engine.resumes else {"save_strategy": "no"})}
