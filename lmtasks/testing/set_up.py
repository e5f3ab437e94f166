"""Setting up a case: a tiny model and tokenizer for it, and a folder that is gone afterwards."""

from __future__ import annotations

import contextlib
import copy
import os
import random
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from lmtasks.api import Architecture, BlockOptions, Recipe
from lmtasks.config.settings import ModelSettings
from lmtasks.errors import InputError
from lmtasks.models.architectures import register_architectures
from lmtasks.models.checkpoint import load_model
from lmtasks.models.config import fit_to_tokenizer
from lmtasks.registry.catalog import Catalog, load_catalog
from lmtasks.testing.case import BLOCK, SEED, Case
from lmtasks.testing.proof import Fault, once
from lmtasks.testing.specimens import tiny_config, tokenizer_for, usual_type


@contextlib.contextmanager
def case_of(
    recipe: Recipe,
    model: str | Architecture | PretrainedConfig | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    options: Mapping[str, Any] | None = None,
    **more: Any,
) -> Iterator[Case]:
    """A case in a folder that is gone afterwards, as are all traces in the state of random numbers.

    Args:
        model: model type, architecture, or configuration; the recipe's own starter's when None.
        tokenizer: trained on the spot when None.
        options: of the recipe.
        more: fields of :class:`Case`.

    Raises:
        InputError: the recipe is about something else than text, of which the kit has none.
    """
    if recipe.medium is not None:
        raise InputError(
            f"the kit proves recipes about text, and {recipe.name} is about {recipe.medium.name}",
            "plugins/lmtasks-masked-speech has tests of the same rules to learn from",
        )
    with tempfile.TemporaryDirectory(prefix="lmtasks-") as place, _leaving_no_trace(place):
        folder = Path(place)

        def tokenized() -> PreTrainedTokenizerBase:
            own = tokenizer or tokenizer_for(recipe)
            own.save_pretrained(folder / "start")
            return own

        def configured() -> PretrainedConfig:
            config = fit_to_tokenizer(_config(recipe, model), own())
            config.save_pretrained(folder / "start")
            return config

        own, config = once(tokenized), once(configured)
        blocks = {"block_size": BLOCK} if issubclass(recipe.options, BlockOptions) else {}
        yield Case(
            title=recipe.name if model is None else f"{_type_of(model)} with {recipe.name}",
            recipe=recipe,
            configured=config,
            tokenized=own,
            folder=folder,
            make=once(lambda: load_model(ModelSettings(), recipe, copy.deepcopy(config()), own(), SEED).model),
            values={**blocks, **(options or {})},
            architecture=model if isinstance(model, Architecture) else None,
            **more,
        )


def _type_of(model: str | Architecture | PretrainedConfig) -> str:
    return model if isinstance(model, str) else model.model_type


def _config(recipe: Recipe, model: str | Architecture | PretrainedConfig | None) -> PretrainedConfig:
    """A tiny configuration for what was asked for."""
    catalog = load_catalog()
    known = catalog.architectures
    register(known.values())
    if isinstance(model, PretrainedConfig):
        return copy.deepcopy(model)
    if isinstance(model, Architecture):
        if reasons := register([model]):
            raise Fault(reasons[0], "see that config and models name classes that can be imported, and fit together")
        return tiny_config(model.model_type, recipe)
    if model is not None:
        return tiny_config(model, recipe)
    settings = recipe.starter.model if recipe.starter else {}
    if "model_type" in settings:
        return tiny_config(str(settings["model_type"]), recipe, overrides=str(settings.get("config_overrides", "")))
    return tiny_config(usual_type(recipe), recipe)


def register(architectures: Iterable[Architecture]) -> list[str]:
    """Make the Auto classes know them; why not, for each that cannot be used."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        register_architectures(Catalog({}, {one.model_type: one for one in architectures}, ()))
    return [str(one.message) for one in told]


@contextlib.contextmanager
def _leaving_no_trace(place: str) -> Iterator[None]:
    """Nobody's cache grows, and random numbers go on afterwards as if nothing had happened."""
    with chance_kept(), mock.patch.dict(os.environ, XDG_CACHE_HOME=place):
        yield


@contextlib.contextmanager
def chance_kept() -> Iterator[None]:
    """Whatever is drawn while this is open, every global generator goes on afterwards as if nothing had been."""
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])
