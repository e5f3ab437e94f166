"""two-terms: masked-lm that also keeps the logits of all tokens small, as a second term with a count of its own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from lmtasks import LossTerm, model_inputs, option, token_mask, token_sums
from lmtasks.builtin.masked_lm import MASKED_LM, MaskedLMOptions


@dataclass(frozen=True, kw_only=True)
class TwoTermsOptions(MaskedLMOptions):
    """Options of two-terms."""

    size_weight: float = option(50.0, help="weight of the mean over all tokens", ge=0)


def loss(model: Any, batch: dict[str, Any], options: TwoTermsOptions) -> Any:
    """Cross-entropy of the hidden tokens, and the squared log-normaliser of all."""
    logits, tokens = model(**model_inputs(batch)).logits, token_mask(batch)
    total, count, more = token_sums(logits, batch["labels"], batch.get("label_smoothing", 0.0))
    size = (logits.float().logsumexp(-1).square() * tokens).sum()
    terms = {"hidden": LossTerm(total, count), "size": LossTerm(size, tokens.sum(), options.size_weight)}
    return terms, more


def targets(batch: dict[str, Any]) -> dict[str, Any]:
    """The ids of what is hidden, and the number of all tokens."""
    return {"hidden": batch["labels"][batch["labels"] != -100], "size": token_mask(batch).sum()}


TWO_TERMS = replace(
    MASKED_LM,
    name="two-terms",
    summary="Fill in missing words with small logits.",
    options=TwoTermsOptions,
    loss=loss,
    targets=targets,
)
