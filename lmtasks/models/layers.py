"""The layers of a model: fewer of them, for a student that begins as a part of its teacher."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from lmtasks.errors import InputError
from lmtasks.models.companions import apart


def keep_layers(model: PreTrainedModel, count: int | None) -> None:
    """Leave the model, in place, so many of its layers: the first, the last, and others evenly between.

    One that has so many already stays as it is, so that a recipe may do this whenever it gets its model.

    Args:
        count: layers that stay; of twelve, six are 0, 2, 4, 7, 9 and 11. None: all.

    Raises:
        InputError: it has fewer, or keeps them otherwise than in a list.
    """
    if count is not None:
        with apart(model):
            _keep(model, count)


def _keep(model: PreTrainedModel, count: int) -> None:
    config = model.config
    whole = config.num_hidden_layers
    named = [(path, part) for path, part in model.named_modules() if isinstance(part, torch.nn.ModuleList)]
    stacks = {path: part for path, part in named if len(part) == whole}
    if not stacks or not 0 < count <= whole:
        told = f"a model of {whole} layers, {config.model_type}, cannot become one of {count}"
        raise InputError(told, "ask for fewer of its layers, or take another model")
    kept = [round(place * (whole - 1) / max(1, count - 1)) for place in range(count)]
    for path, stack in stacks.items():
        parent, _, name = path.rpartition(".")
        setattr(model.get_submodule(parent), name, torch.nn.ModuleList([stack[place] for place in kept]))
        for place, layer in enumerate(model.get_submodule(path).children()):
            _renumber(layer, place)
    config.num_hidden_layers = count
    if getattr(config, "layer_types", None):
        config.layer_types = [config.layer_types[place] for place in kept]


def _renumber(layer: torch.nn.Module, place: int) -> None:
    """Tell a layer its new place: under it, it keeps what it remembers of a text."""
    for part in layer.modules():
        if hasattr(part, "layer_idx"):
            setattr(part, "layer_idx", place)  # noqa: B010  (mypy takes it for a module)
