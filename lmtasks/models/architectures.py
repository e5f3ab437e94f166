"""Declared architectures: made known to transformers' Auto classes, and asked about a model."""

from __future__ import annotations

import warnings
from contextlib import AbstractContextManager
from fnmatch import fnmatch

import torch
import transformers
from transformers import AutoConfig, PretrainedConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from lmtasks.api import Architecture, Recipe, resolve
from lmtasks.models.forward import measuring
from lmtasks.models.pad_to_multiple import fill_up
from lmtasks.registry.catalog import Catalog, load_catalog

_registered: dict[str, Architecture] = {}
"""Declarations by model type; transformers keeps its Auto classes for the whole process, too."""


def register_architectures(catalog: Catalog | None = None) -> None:
    """Make every installed plugin's architecture known to transformers' Auto classes.

    One that cannot be imported is left out with a warning: it must not stop the others.
    """
    for architecture in (catalog or load_catalog()).architectures.values():
        try:
            _register(architecture)
        except (ImportError, ValueError) as error:
            warnings.warn(f"architecture '{architecture.model_type}' cannot be used: {error}", stacklevel=2)
        else:
            _registered[architecture.model_type] = architecture


def architecture_of(config: PretrainedConfig) -> Architecture:
    """The declaration of a configuration's model type; an empty one for most."""
    return _registered.get(config.model_type) or Architecture(model_type=config.model_type)


def with_gradients(model: PreTrainedModel) -> AbstractContextManager[None]:
    """While this is open there are gradients, in the mode that the model has them in: evaluation if it can."""
    return measuring(model, training=architecture_of(model.config).reversible, gradients=True)


def _register(architecture: Architecture) -> None:
    """Register the configuration, where transformers lacks it, and the model classes; facts alone need neither."""
    if not architecture.config and not architecture.models:
        return
    # The mapping is lazy and knows everything by [] and `in`, but nothing by get().
    known = CONFIG_MAPPING[architecture.model_type] if architecture.model_type in CONFIG_MAPPING else None  # noqa: SIM401
    config = resolve(architecture.config) if architecture.config else known
    if config is None:
        raise ValueError("transformers has no such model type, and the declaration names no configuration")
    if known is None:
        AutoConfig.register(architecture.model_type, config)
    elif known.__name__ != config.__name__:
        raise ValueError(f"transformers already has this model type, as {known.__name__}")
    for auto, reference in architecture.models.items():
        module, _, name = reference.partition(":")
        if known is not None and module == "transformers":
            # By name, as transformers lists its own, which imports a model when it is asked for.
            getattr(transformers, auto)._model_mapping._model_mapping[architecture.model_type] = name
        else:
            getattr(transformers, auto).register(config, resolve(reference), exist_ok=True)


def takes(recipe: Recipe, config: type[PretrainedConfig]) -> bool:
    """Whether the recipe, and its class, an Auto class or one model's, are for models of this configuration."""
    if recipe.model_types and config.model_type not in recipe.model_types:
        return False
    try:
        model_class = resolve(recipe.model_class)
    except ImportError:  # of a broken plugin, of which only those hear who use it
        return False
    # What an Auto class maps is the one thing that tells; transformers has no public name for it.
    mapping = getattr(model_class, "_model_mapping", None)
    if mapping is not None:
        return config in mapping
    return issubclass(config, getattr(model_class, "config_class", None) or PretrainedConfig)


def adapted(model: PreTrainedModel, recipe: Recipe) -> PreTrainedModel:
    """The model, taking what recipes give although its architecture would not, and learning what it can."""
    architecture = architecture_of(model.config)
    if (multiple := architecture.multiple(model.config)) > 1:
        fill_up(model, multiple)
    idle = architecture.idle.get(recipe.model_class.partition(":")[2], ())
    for name, parameter in model.named_parameters():
        if any(fnmatch(name, pattern) for pattern in idle):
            parameter.requires_grad_(False)
    keep_padding_empty(model)
    return model


def keep_padding_empty(model: PreTrainedModel) -> None:
    """Let no gradient reach the embedding of the padding token, where the architecture wants it empty.

    Another layer may share the table. A copy of the model, also a pickled one, has to be asked again.
    """
    if not architecture_of(model.config).empty_padding:
        return
    table = model.get_input_embeddings()
    padding = getattr(table, "padding_idx", None)
    if padding is not None:
        with torch.no_grad():
            table.weight[padding] = 0
        row = torch.tensor([padding])
        table.weight.register_hook(lambda gradient: gradient.index_fill(0, row.to(gradient.device), 0.0))
