"""Answers of a model that is being trained, without its training noticing.

They draw from a chance of their own, in evaluation mode, with a copy of the tokenizer, and whatever the model was set
to before, it is set to again.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lmtasks.api import Recipe
from lmtasks.errors import InputError, LmtasksError
from lmtasks.inference.arguments import completed, refused
from lmtasks.inference.load import own_pipeline, pipeline_of
from lmtasks.inference.pipelines import keep_first_space
from lmtasks.models.forward import in_mode, sparse
from lmtasks.training.evaluation import fixed_chance

NEW_TOKENS = 16
"""Where the recipe does not say how it shows what its models have learned."""

Sample = dict[str, Any]
"""``prompt``, and ``answers``: lines as ``lmtasks predict`` prints them."""


class Sampler:
    """The pipeline of a recipe around a model that is being trained.

    Raises:
        InputError: it cannot answer.
    """

    def __init__(
        self, recipe: Recipe, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str]
    ) -> None:
        self.recipe, self.model, self.prompts = recipe, model, prompts
        tokenizer = copy.deepcopy(tokenizer)
        with in_mode(self.model), own_pipeline(self.recipe):
            self.pipeline = pipeline_of(self.recipe, self.model, tokenizer, device=self.model.device)
        generates = bool(self.pipeline._pipeline_calls_generate)
        if generates:
            keep_first_space(tokenizer)
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        starter = self.recipe.starter
        shown = dict(starter.predict) if starter else {"max_new_tokens": NEW_TOKENS} if generates else {}
        self.arguments = completed(self.pipeline, self.recipe.pipeline, shown, None)
        self.before = self.samples()

    def samples(self) -> list[Sample]:
        """The answers of the model as it is now."""
        self.pipeline.device = self.model.device  # the Trainer may have moved it
        with in_mode(self.model), sparse(self.model), _in_full(self.model), torch.no_grad(), _own_chance():
            return [{"prompt": prompt, "answers": self._answers(prompt)} for prompt in self.prompts]

    def _answers(self, prompt: str) -> list[str]:
        try:
            with own_pipeline(self.recipe):
                output = self.pipeline(prompt, **self.arguments)
        except (torch.OutOfMemoryError, LmtasksError):
            raise
        except Exception as error:  # of a library, about a model that is anybody's
            reason = refused(f"--samples_every: {self.recipe.pipeline}", error, ()).message
            raise InputError(reason, "leave --samples_every out") from error
        return self.recipe.answers(output)


@contextmanager
def _in_full(model: PreTrainedModel) -> Iterator[None]:
    """While this is open the model computes in the precision of its weights, as the finished one will."""
    plain = vars(model).get("_original_forward")  # what accelerate has put the precision of the training around
    if plain is None:
        yield
        return
    wrapped, model.forward = model.forward, plain
    try:
        yield
    finally:
        model.forward = wrapped


@contextmanager
def _own_chance() -> Iterator[None]:
    """While this is open, what is drawn is always the same, and nobody outside notices."""
    kept = random.getstate(), np.random.get_state()
    try:
        with fixed_chance():
            yield
    finally:
        random.setstate(kept[0])
        np.random.set_state(kept[1])
