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
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from lmtasks.api import Architecture, BlockOptions, Recipe, resolve
from lmtasks.config.settings import ModelSettings
from lmtasks.errors import InputError, first_line
from lmtasks.models.architectures import register_architectures
from lmtasks.models.checkpoint import load_model
from lmtasks.models.companions import prepare
from lmtasks.models.config import _fresh, fit_to_tokenizer
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
        more: fields of :class:`Case`; all others as for :func:`lmtasks.testing.check_recipe`.

    Raises:
        InputError: the recipe is about something else than text, of which the kit has none.
    """
    if recipe.medium is not None:
        raise InputError(
            f"the kit proves recipes about text, and {recipe.name} is about {recipe.medium.name}",
            "plugins/lmtasks-masked-speech has tests of the same rules to learn from",
        )
    with (
        tempfile.TemporaryDirectory(prefix="lmtasks-") as place,
        chance_kept(),
        mock.patch.dict(os.environ, XDG_CACHE_HOME=place),  # nobody's own cache grows
    ):
        folder = Path(place)

        @once
        def tokenized() -> PreTrainedTokenizerBase:
            own = tokenizer or tokenizer_for(recipe)
            own.save_pretrained(folder / "start")
            return own

        @once
        def configured() -> PretrainedConfig:
            config = fit_to_tokenizer(_config(recipe, model), tokenized())
            config.save_pretrained(folder / "start")
            for name in unnamed:
                save_frozen(recipe, name, config, folder / name)
                tokenized().save_pretrained(folder / name)  # one of another vocabulary is asked with its own
            return config

        @once
        def make() -> PreTrainedModel:
            model = load_model(ModelSettings(), recipe, copy.deepcopy(configured()), tokenized(), SEED).model
            prepare(model, recipe, case.request.options, SEED)
            return model

        def usual() -> contextlib.AbstractContextManager[Case]:
            return case_of(recipe, usual_type(recipe), tokenizer, options, **more)

        unnamed = [name for name in recipe.frozen if name not in (options or {})]
        companions = {name: str(folder / name) for name in unnamed}
        blocks = {"block_size": BLOCK} if issubclass(recipe.options, BlockOptions) else {}
        case = Case(
            title=recipe.name if model is None else f"{getattr(model, 'model_type', model)} with {recipe.name}",
            recipe=recipe,
            configured=configured,
            tokenizer=tokenized,
            folder=folder,
            make=make,
            values={**blocks, **companions, **(options or {})},
            architecture=model if isinstance(model, Architecture) else None,
            usual=usual if model is None and recipe.starter else None,
            **more,
        )
        yield case


def save_frozen(recipe: Recipe, name: str, config: PretrainedConfig, folder: Path) -> None:
    """Make a frozen companion of the model's own shape, with weights large enough to be felt."""
    frozen = recipe.frozen[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(len(name))
        try:
            one = _fresh(resolve(frozen.model_class), copy.deepcopy(config))
        except Exception as error:
            raise Fault(
                f"no {frozen.model_class} can be made for '{name}' of a tiny {config.model_type}: {first_line(error)}",
                f"name one that fits: check_recipe(..., options={{'{name}': folder}})",
            ) from error
        for parameter in one.parameters():
            parameter.data += 0.1 * torch.randn(parameter.shape)
    one.save_pretrained(folder)


def _config(recipe: Recipe, model: str | Architecture | PretrainedConfig | None) -> PretrainedConfig:
    """A tiny configuration for what was asked for."""
    register(load_catalog().architectures.values())
    if isinstance(model, PretrainedConfig):
        return copy.deepcopy(model)
    if isinstance(model, Architecture):
        if reasons := register([model]):
            raise Fault(reasons[0], "see that config and models name classes that can be imported, and fit together")
        model = model.model_type
    settings = recipe.starter.model if recipe.starter and model is None else {}
    if "model_type" in settings:
        return tiny_config(str(settings["model_type"]), recipe, str(settings.get("config_overrides", "")))
    return tiny_config(usual_type(recipe) if model is None else model, recipe)


def register(architectures: Iterable[Architecture]) -> list[str]:
    """Make the Auto classes know them; why not, for each that cannot be used."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        register_architectures(Catalog({}, {one.model_type: one for one in architectures}, ()))
    return [str(one.message) for one in told]


@contextlib.contextmanager
def chance_kept() -> Iterator[None]:
    """Global generators of random numbers that go on afterwards as if nothing had been drawn while this is open."""
    with torch.random.fork_rng(devices=[]), contextlib.ExitStack() as afterwards:
        afterwards.callback(random.setstate, random.getstate())
        afterwards.callback(np.random.set_state, np.random.get_state())
        yield
