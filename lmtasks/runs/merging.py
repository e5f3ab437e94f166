"""An adapter merged into the model that it is for: a model that needs no adapter, and no peft."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lmtasks.api import Recipe, options_of, resolve
from lmtasks.artifacts.failures import machine_failures
from lmtasks.artifacts.lock import reserved
from lmtasks.artifacts.model_card import write_card
from lmtasks.artifacts.run_folder import (
    digests,
    is_bare,
    new_folder,
    read_record,
    read_whole,
    require_space,
    require_writable,
    save_into,
    sealed,
)
from lmtasks.errors import InputError, RunError
from lmtasks.inference.fitting_recipe import installed_recipe
from lmtasks.inference.load import saved_processor
from lmtasks.models.adapters import base_of, merge_into, require_whole
from lmtasks.models.checkpoint import pretrained
from lmtasks.models.companions import Whole, apart, prepare, require_companions
from lmtasks.runs.record import write_record

LENGTH = 16
"""Tokens with which the two are compared."""


@machine_failures()
def merge(adapter: str | Path, output_dir: str | Path, *, recipe: str | None = None, revision: str = "main") -> Path:
    """A folder with the model that an adapter makes of the one that it is for, as a model of its own.

    Of a run it has the record and the card as well, so it can be evaluated, published and trained on as a run.

    Args:
        adapter: folder of a run with an adapter, folder of an adapter or Hub id.
        recipe: name of the recipe; that of the run, or the one that fits the model, when not given.
        revision: branch, tag or commit of an adapter on the Hub.

    Raises:
        InputError: no adapter, one that cannot be merged, or a folder that holds something.
        RunError: what was saved is not what the adapter makes.
    """
    if not isinstance(output_dir, str | Path) or not str(output_dir).strip():
        raise InputError(f"{output_dir!r} is no name of a folder", "name a new folder")
    name, folder = str(adapter), new_folder(str(output_dir))
    if not is_bare(folder):
        raise InputError(f"'{folder}' holds something already", "choose a new folder")
    if Path(name).is_dir() and folder.resolve().is_relative_to(Path(name).resolve()):
        raise InputError(f"'{folder}' is inside '{name}', which is merged", "choose a folder beside it")
    require_writable(folder)
    if base_of(name, revision) is None:
        raise InputError(f"'{name}' is no adapter", "name a run that was trained with --use_peft")
    with read_whole(name):
        require_whole(name, revision)
        chosen = installed_recipe(name, recipe, revision)
        how: dict[str, Any] = {"dtype": "auto", "revision": revision, "trust_remote_code": False}
        model, _, _ = pretrained(resolve(chosen.model_class), name, **how)
        processor, record = saved_processor(name, chosen, revision), read_record(name)
        if record is not None and chosen.prepare_model is not None:
            _accompany(model, chosen, record, name)
    require_space(folder, sum(parameter.nbytes for parameter in model.parameters()))
    expected = _logits(model, processor)
    with apart(model):
        merged = merge_into(model)
    with reserved(folder):
        files = save_into(folder, Whole(merged, chosen), processor)
        with apart(merged):
            _verify(folder, chosen, merged, expected, processor)
        if record is not None:
            # By these a run would take the folder for its own; and the curve is not there.
            asked = ("request", "asked", "adapter", "earlier", "curve")
            record = {name: value for name, value in record.items() if name not in asked}
            record |= {"merged": name, "files": files, "sha256": digests(folder, files)}
            write_card(folder, record)
            write_record(folder, sealed(record))
    return folder


def _accompany(model: PreTrainedModel, recipe: Recipe, record: Mapping[str, Any], name: str) -> None:
    """Put beside the model what its run has trained beside it."""
    known = options_of(recipe.options)
    options = {option: value for option, value in record["options"].items() if option in known}
    prepare(model, recipe, recipe.options(**options), record["seeds"]["seed"])
    require_companions(model, recipe, name, "merge the run as it was written")


def _verify(folder: Path, recipe: Recipe, merged: PreTrainedModel, expected: Any, processor: Any) -> None:
    """See that the folder has the merged weights to the bit, and that they do what the adapter does."""
    saved, _, _ = pretrained(resolve(recipe.model_class), str(folder), dtype="auto", trust_remote_code=False)
    ours, theirs = merged.state_dict(), saved.state_dict()
    same = ours.keys() == theirs.keys() and all(torch.equal(value, theirs[name]) for name, value in ours.items())
    actual = _logits(saved, processor)
    # Sums in another order, and for halves of a number another rounding.
    near = 1e-3 if saved.dtype == torch.float32 else 5e-2
    if not same or (expected is not None and (actual - expected).norm() > near * expected.norm()):
        raise RunError(f"the model in '{folder}' is not what the adapter makes", "use the adapter as it is")


def _logits(model: PreTrainedModel, processor: Any) -> torch.Tensor | None:
    """What a model of text says to some tokens; None of another medium."""
    if not isinstance(processor, PreTrainedTokenizerBase):
        return None
    ids = torch.arange(LENGTH)[None] * 7919 % len(processor)
    with torch.no_grad():
        logits: torch.Tensor = model.eval()(input_ids=ids).logits.float()
    return logits
