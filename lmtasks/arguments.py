"""``TrainingArguments``: which fields people may set, and the object made of them."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from lmtasks.errors import InputError
from lmtasks.options import Option

REFUSED = {
    "auto_find_batch_size": "after running out of memory it goes on with weights that are already trained",
    "bf16_full_eval": "it leaves the model, and what is saved of it, in bfloat16",
    "fp16_full_eval": "it leaves the model, and what is saved of it, in float16",
    "batch_eval_metrics": "evaluation sums batch by batch anyway",
    "label_smoothing_factor": "no recipe's loss smooths labels yet",
    "hub_token": "a token given here ends up in files; set HF_TOKEN or use hf auth login",
    "hub_strategy": "publishing happens once, after a finished run",
    "hub_always_push": "publishing happens once, after a finished run",
    "hub_revision": "use lmtasks push OUT REPO_ID --revision",
    "include_for_metrics": "metrics belong to the recipe",
    "label_names": "the loss belongs to the recipe",
    "logging_nan_inf_filter": "it would hide that training diverged",
    "prediction_loss_only": "evaluation keeps no predictions anyway",
    "past_index": "recipes have no such memory",
    "remove_unused_columns": "examples hold only what the collator needs",
}
"""Fields that would make a figure or a file wrong, or that have nothing to do here, and why."""

OURS = ("output_dir", "push_to_hub", "hub_model_id", "hub_private_repo")
"""Fields whose names are settings of lmtasks."""


def training_options() -> dict[str, Option]:
    """Every field of ``TrainingArguments`` that may be set, as options."""
    hints = typing.get_type_hints(TrainingArguments)
    return {
        field.name: Option(
            name=field.name,
            type=_readable(hints[field.name]),
            default=_default(field),
            help=str(field.metadata.get("help", "")),
        )
        for field in dataclasses.fields(TrainingArguments)
        if field.init and field.name not in REFUSED and field.name not in OURS
    }


def _readable(kind: Any) -> Any:
    """The type with the enums, which TrainingArguments reads from text, as text."""
    alternatives = typing.get_args(kind) or (kind,)
    origin = typing.get_origin(kind)
    if origin in (list, dict, typing.Literal):
        return kind
    plain = [part if _is_plain(part) else str for part in alternatives]
    return typing.Union[tuple(dict.fromkeys(plain))]  # noqa: UP007  (a union of a computed list)


def _is_plain(kind: Any) -> bool:
    plain = kind in (bool, int, float, str, list, dict, type(None))
    return plain or typing.get_origin(kind) in (list, dict, typing.Literal)


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def training_arguments(values: Mapping[str, Any], output_dir: Path, steps: int) -> TrainingArguments:
    """The arguments of one run.

    Args:
        values: fields that the user or the recipe set.
        output_dir: folder of the run; the Trainer writes to ``checkpoints`` in it.
        steps: optimiser steps of the run, for a log line every twentieth.

    Raises:
        InputError: values that do not go together.
    """
    ours = {
        "output_dir": str(output_dir / "checkpoints"),
        "disable_tqdm": True,
        # Pinning needs something to pin for; without it every data loader warns.
        "dataloader_pin_memory": torch.accelerator.is_available() and values.get("dataloader_pin_memory", True),
        "logging_nan_inf_filter": False,
        "remove_unused_columns": False,
    }
    try:
        return TrainingArguments(**{"logging_steps": max(1, steps // 20), **values, **ours})
    except (ValueError, TypeError, ImportError, RuntimeError) as error:
        raise InputError(
            f"training arguments: {str(error).strip().splitlines()[0]}", "lmtasks run RECIPE --help-all"
        ) from error
