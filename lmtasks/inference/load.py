"""The model of a run, a folder or the Hub, behind the pipeline of its recipe or alone."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch
import transformers
from transformers import Pipeline, PreTrainedModel, PreTrainedTokenizerBase

from lmtasks.api import TOKENIZER, Recipe, resolve
from lmtasks.config.settings import ModelSettings
from lmtasks.models.adapters import require_whole
from lmtasks.models.architectures import adapted
from lmtasks.models.checkpoint import from_pretrained as model_from_pretrained
from lmtasks.models.config import load_config
from lmtasks.models.forward import moved
from lmtasks.models.load_errors import found_or_explained
from lmtasks.models.tokenizer import from_pretrained, saved_tokenizer
from lmtasks.registry.faults import blamed, require_references


def own_pipeline(recipe: Recipe) -> AbstractContextManager[None]:
    """While this is open, what goes wrong is a fault of the recipe's pipeline, where that is a plugin's own."""
    return blamed(recipe, "pipeline", recipe.pipeline)


def load_pipeline(name: str, recipe: Recipe, revision: str) -> Pipeline:
    """The pipeline that the recipe names, with the model and its processing class.

    Raises:
        InputError: one of them is not there, is damaged, or is not what the recipe needs.
    """
    require_references(recipe, "model_class", "pipeline")
    require_whole(name, revision)
    model = model_from_pretrained(recipe.model_class, name, revision)
    processor = saved_processor(name, recipe, revision)
    with found_or_explained("pipeline", name):
        return pipeline_of(recipe, model, processor)


def pipeline_of(recipe: Recipe, model: PreTrainedModel, processor: Any, **how: Any) -> Pipeline:
    """The pipeline that the recipe names, with a model that is at hand.

    Args:
        how: more arguments of the pipeline, such as ``device``.
    """
    kinds = {"tokenizer": PreTrainedTokenizerBase, "feature_extractor": transformers.FeatureExtractionMixin}
    role = next((role for role, kind in kinds.items() if isinstance(processor, kind)), "processor")
    own = ":" in recipe.pipeline
    make = resolve(recipe.pipeline) if own else partial(transformers.pipeline, recipe.pipeline)
    made: Pipeline = make(model=model, **{role: processor}, **how)
    return made


def load_alone(name: str, recipe: Recipe, revision: str) -> tuple[PreTrainedModel, Any]:
    """The model without a pipeline, on the accelerator if there is one, and its processing class.

    Raises:
        InputError: one of them is not there, is damaged, or is not what the recipe needs.
    """
    require_references(recipe, "model_class")
    load_config(ModelSettings(model_name_or_path=name, revision=revision), recipe)  # refuses what is of another task
    model = adapted(model_from_pretrained(recipe.model_class, name, revision), recipe)
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return moved(model, device or torch.device("cpu")), saved_processor(name, recipe, revision)


def saved_processor(name: str, recipe: Recipe, revision: str) -> Any:
    """The processing class that lies beside a model.

    Raises:
        InputError: not there, damaged, or not what the recipe needs.
    """
    settings = ModelSettings(model_name_or_path=name, revision=revision)
    if recipe.processor == TOKENIZER:
        return saved_tokenizer(name, settings, recipe)
    return from_pretrained("processing class", recipe.processor, name, settings)
