"""Facts about a model that are measured before training, because configurations lie about them."""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedModel

from lmtasks.errors import InputError, first_line
from lmtasks.recipe import Batch, Recipe


def probe(model: PreTrainedModel, recipe: Recipe, batch: Batch) -> None:
    """One example through the model, and back from its earlier positions to its last token.

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
    with torch.enable_grad():
        try:
            logits, embedded = _forward(model, batch)
        except (IndexError, RuntimeError, TypeError, ValueError) as error:
            raise InputError(
                f"the model fails on a block of {batch['input_ids'].shape[1]} tokens: {first_line(error)}",
                "try a smaller --block_size; check that tokenizer and model belong together",
            ) from error
        if recipe.attention:
            _check_attention(recipe, model, _looks_ahead(logits, embedded))
    model.train(was_training)


def _forward(model: PreTrainedModel, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits [1, length, vocabulary], and the embedded tokens [1, length, size] that they came from."""
    seen: list[torch.Tensor] = []
    hook = model.get_input_embeddings().register_forward_hook(lambda module, inputs, output: seen.append(output))
    try:
        outputs: Any = model(**{name: value for name, value in batch.items() if name != "labels"})
    finally:
        hook.remove()
    return outputs.logits, seen[0]


def _looks_ahead(logits: torch.Tensor, embedded: torch.Tensor) -> bool:
    """Whether the logits of earlier positions depend on the last token.

    A gradient answers exactly where a change of the token would drown in rounding: what a mask hides
    has a gradient of zero, what is seen has not, however small the weights are. The weighting is
    arbitrary; plain sums can cancel, those of a normalised layer do.
    """
    earlier = logits[:, :-1].float()
    weighting = torch.randn(earlier.shape, generator=torch.Generator().manual_seed(0)).to(earlier.device)
    (gradient,) = torch.autograd.grad((earlier * weighting).sum(), embedded, allow_unused=True)
    return gradient is not None and bool(gradient[:, -1].count_nonzero())


def _check_attention(recipe: Recipe, model: PreTrainedModel, looks_ahead: bool) -> None:
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
