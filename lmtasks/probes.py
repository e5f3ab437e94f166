"""Facts about a model that are measured before training, because configurations lie about them."""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedModel

from lmtasks.errors import InputError
from lmtasks.recipe import Batch, Recipe


def probe(model: PreTrainedModel, recipe: Recipe, batch: Batch) -> None:
    """One example forward, and once more with its last token changed.

    Args:
        model: the model to train.
        recipe: says what a position may see.
        batch: one example of full length, as the recipe collates it.

    Raises:
        InputError: the model cannot take the length or the ids, sees the future although it must
            not, or sees only one side although it must see both.
    """
    was_training = model.training
    model.eval()
    with torch.no_grad():
        try:
            logits = _logits(model, batch)
        except (IndexError, RuntimeError, TypeError, ValueError) as error:
            raise InputError(
                f"the model fails on a block of {batch['input_ids'].shape[1]} tokens: {str(error).splitlines()[0]}",
                "try a smaller --block_size; check that tokenizer and model belong together",
            ) from error
        if recipe.attention:
            _check_attention(recipe, model, logits, _logits(model, _last_token_changed(batch, model)))
    model.train(was_training)


def _logits(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    outputs: Any = model(**{name: value for name, value in batch.items() if name != "labels"})
    logits: torch.Tensor = outputs.logits
    return logits


def _last_token_changed(batch: Batch, model: PreTrainedModel) -> Batch:
    ids = batch["input_ids"].clone()
    # Any other id will do, as long as it stays within the vocabulary; a high one is no special token.
    ids[:, -1] = torch.where(ids[:, -1] == model.config.vocab_size - 1, ids[:, -1] - 1, model.config.vocab_size - 1)
    return {**batch, "input_ids": ids}


def _check_attention(recipe: Recipe, model: PreTrainedModel, before: torch.Tensor, after: torch.Tensor) -> None:
    """Logits of earlier positions move with a later token exactly when the model looks ahead."""
    looks_ahead = not torch.allclose(before[:, :-1], after[:, :-1], atol=1e-5, rtol=1e-4)
    kind = model.config.model_type
    if recipe.attention == "causal" and looks_ahead:
        raise InputError(
            f"{recipe.name} cannot train this {kind} model: it sees the tokens that it should predict",
            "take a decoder such as gpt2 or llama, or lmtasks run masked-lm for this model",
        )
    if recipe.attention == "bidirectional" and not looks_ahead:
        raise InputError(
            f"{recipe.name} cannot train this {kind} model: it does not see the text after a position",
            "take an encoder such as roberta or modernbert, or lmtasks run causal-lm for this model",
        )
