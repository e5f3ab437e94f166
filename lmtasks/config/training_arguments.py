"""``TrainingArguments``: which fields people may set, and the object made of them."""

from __future__ import annotations

import dataclasses
import importlib.util
import re
import typing
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments
from transformers.integrations import INTEGRATION_TO_CALLBACK, get_available_reporting_integrations
from transformers.utils import is_liger_kernel_available

from lmtasks.api import Option
from lmtasks.api.options import alternatives_of
from lmtasks.config.world import World
from lmtasks.errors import InputError, nearest

REFUSED = {
    "auto_find_batch_size": "after running out of memory it goes on with weights that are already trained",
    "bf16_full_eval": "it leaves the model, and what is saved of it, in bfloat16",
    "fp16_full_eval": "it leaves the model, and what is saved of it, in float16",
    "batch_eval_metrics": "evaluation sums batch by batch anyway",
    "hub_token": "a token given here ends up in files; set HF_TOKEN or use hf auth login",
    "hub_strategy": "publishing happens once, after a finished run",
    "hub_always_push": "publishing happens once, after a finished run",
    "hub_revision": "use lmtasks push OUT REPO_ID --revision",
    "include_for_metrics": "metrics belong to the recipe",
    "label_names": "the loss belongs to the recipe",
    "logging_nan_inf_filter": "it would hide that training diverged",
    "prediction_loss_only": "evaluation keeps no predictions anyway",
    "enable_jit_checkpoint": "lmtasks itself saves a checkpoint when a signal stops it",
    "remove_unused_columns": "examples hold only what the collator needs",
}
"""Fields that would make a figure or a file wrong, or that have nothing to do here, and why."""

OURS = ("output_dir", "push_to_hub", "hub_model_id", "hub_private_repo", "resume_from_checkpoint")
"""Fields whose names are settings of lmtasks."""


RENAMED = {
    "gradient_checkpointing": "activation_checkpointing",
    "gradient_checkpointing_kwargs": "activation_checkpointing_kwargs",
}
"""Fields that a newer transformers calls otherwise, and warns of; people go on typing what guides tell them."""

_LIMITS = {"label_smoothing_factor": {"ge": 0, "lt": 1}, "eval_steps": {"gt": 0}}
"""Ranges of fields that TrainingArguments does not check."""


def training_options() -> dict[str, Option]:
    """Every field of ``TrainingArguments`` that may be set, as options."""
    hints = typing.get_type_hints(TrainingArguments)
    return {
        field.name: Option(
            name=field.name,
            type=_readable(hints[field.name]),
            default=field.default if field.default_factory is dataclasses.MISSING else field.default_factory(),
            help=str(field.metadata.get("help", "")),
            limits=_LIMITS.get(field.name, {}),
        )
        for field in dataclasses.fields(TrainingArguments)
        if field.init and field.name not in REFUSED and field.name not in OURS
    }


def _readable(kind: Any) -> Any:
    """The type with text for the classes, enums above all, that TrainingArguments reads from text."""
    own = [part if part.__module__ in ("builtins", "typing") else str for part in alternatives_of(kind)]
    return typing.Union[tuple(dict.fromkeys(own))]  # noqa: UP007  (a union of a computed list)


def training_arguments(
    values: Mapping[str, Any], output_dir: Path, steps: int, trackers: Collection[str] = ()
) -> TrainingArguments:
    """The arguments of one run.

    Args:
        output_dir: folder of the run; the Trainer writes to ``checkpoints`` in it.
        steps: optimiser steps of the run, for a log line every twentieth.
        trackers: names for ``--report_to`` that are none of transformers.

    Raises:
        InputError: values that do not go together.
    """
    ours: dict[str, Any] = {
        **_parallel(values),
        "bf16": bool(values.get("bf16")),
        "output_dir": str(output_dir / "checkpoints"),
        "disable_tqdm": True,
        # Pinning needs something to pin for; without it every data loader warns.
        "dataloader_pin_memory": torch.accelerator.is_available() and values.get("dataloader_pin_memory", True),
        "logging_nan_inf_filter": False,
        "remove_unused_columns": False,
        # Which checkpoints are kept is for the run to say: the Trainer goes by names, whosever folders they are of.
        "save_total_limit": None,
    }
    if World.current().size > 1 and not torch.accelerator.is_available():
        ours["use_cpu"] = True  # unless told so, accelerate takes each process on such a machine for the only one
    try:
        arguments = TrainingArguments(**{"logging_steps": max(1, steps // 20), **_renamed(values), **ours})
    except (ValueError, TypeError, ImportError, RuntimeError, OSError, AttributeError, KeyError) as error:
        raise refused(error) from error
    if (mode := arguments.torch_compile_mode) and mode not in (modes := torch._inductor.list_mode_options()):
        raise InputError(
            f"--torch_compile_mode: unknown mode '{mode}'{nearest(mode, modes)}", f"one of {', '.join(modes)}"
        )
    if arguments.fp16 and arguments.device.type == "cpu":
        raise InputError("--fp16 needs a GPU", "leave --fp16 out; --bf16 --use_cpu computes in bfloat16")
    if arguments.save_strategy == "best" and arguments.metric_for_best_model is None:
        raise InputError("--save_strategy best needs --metric_for_best_model", "such as --metric_for_best_model loss")
    if arguments.use_liger_kernel:
        _require_liger(arguments)
    if arguments.torch_compile:
        _require_compiler(arguments)
    for tracker in arguments.report_to:
        _require_tracker(tracker, trackers)
    return arguments


def _renamed(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values under the names that this transformers has for them."""
    known = {field.name for field in dataclasses.fields(TrainingArguments)}
    return {RENAMED[name] if RENAMED.get(name) in known else name: value for name, value in values.items()}


def devices(values: Mapping[str, Any]) -> int:
    """Devices that a process alone trains on: the Trainer gives a part of each batch to every GPU that it sees."""
    used = {name: values[name] for name in ("use_cpu",) if name in values}
    return max(1, int(training_arguments(used, Path(), 0).n_gpu))


def _is_asked(values: Mapping[str, Any], name: str) -> bool:
    return str(values.get(name) or "false").lower() not in ("false", "0", "")


def _parallel(values: Mapping[str, Any]) -> dict[str, Any]:
    """What asks for shards of the model, as transformers wants it.

    Raises:
        InputError: the package is not there, or there is but one process.
    """
    if _is_asked(values, "deepspeed") and importlib.util.find_spec("deepspeed") is None:
        raise InputError("--deepspeed: it is not installed", "pip install deepspeed, or --fsdp")
    if not _is_asked(values, "fsdp"):
        return {"fsdp": None} if "fsdp" in values else {}
    if World.current().size == 1:
        raise InputError(
            "--fsdp divides a model among processes, and here is one", "torchrun --nproc_per_node 2 -m lmtasks run ..."
        )
    return {"fsdp": True} if str(values["fsdp"]).lower() in ("true", "1") else {}


def refused(error: Exception) -> InputError:
    """The objection of transformers to the arguments, in a line."""
    text = " ".join(str(error).split())
    if wrong := re.fullmatch(r"(\S+) is not a valid (\w+), please select one of \[(.*)\]", text):
        word, kind, listed = wrong.groups()
        known = re.findall(r"[\w-]+", listed)
        return InputError(f"'{word}' is not a valid {kind}{nearest(word, known)}", f"one of {', '.join(known)}")
    return InputError(f"training arguments: {text}", "lmtasks run RECIPE --help-all")


def _require_liger(arguments: TrainingArguments) -> None:
    """The Trainer would notice only in training."""
    if arguments.device.type == "cpu":
        raise InputError("--use_liger_kernel needs a GPU", "leave --use_liger_kernel out")
    if not is_liger_kernel_available():
        raise InputError("--use_liger_kernel: it is not installed", "pip install liger-kernel")


def _require_compiler(arguments: TrainingArguments) -> None:
    """torch would notice only in the first step: on a CPU its compiler writes C++."""
    if arguments.device.type != "cpu" or arguments.torch_compile_backend != "inductor":
        return
    from torch._inductor import cpp_builder, exc  # takes a second

    try:
        cpp_builder.get_cpp_compiler()
    except exc.InvalidCxxCompiler as error:
        raise InputError(
            "--torch_compile needs a C++ compiler on a CPU", "install one, such as g++, or leave --torch_compile out"
        ) from error


def _require_tracker(name: str, others: Collection[str]) -> None:
    """The Trainer would notice only when the run folder is there."""
    if name not in INTEGRATION_TO_CALLBACK:
        known = [*INTEGRATION_TO_CALLBACK, *others]
        raise InputError(f"--report_to: unknown tracker '{name}'{nearest(name, known)}", f"one of {', '.join(known)}")
    if name not in get_available_reporting_integrations():
        raise InputError(f"--report_to {name}: it is not installed", f"pip install {name}")
