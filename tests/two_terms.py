"""two-terms: masked-lm that also keeps the logits of all tokens small, as a second term with a count of its own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from lmtasks import LossTerm, option
from lmtasks.builtin.masked_lm import MASKED_LM, MaskedLMOptions


@dataclass(frozen=True, kw_only=True)
class TwoTermsOptions(MaskedLMOptions):
    """Options of two-terms."""

    size_weight: float = option(50.0, help="weight of the mean over all tokens", ge=0)


def seen(batch: dict[str, Any]) -> Any:
    """Which positions hold a token, as numbers."""
    import torch

    return batch.get("attention_mask", torch.ones_like(batch["input_ids"]))


def loss(model: Any, batch: dict[str, Any], options: TwoTermsOptions) -> Any:
    """Cross-entropy of the hidden tokens, and the squared log-normaliser of all."""
    from lmtasks import token_sums

    inputs = {name: value for name, value in batch.items() if name not in ("labels", "label_smoothing")}
    logits, hidden = model(**inputs).logits, batch["labels"] != -100
    total, count, more = token_sums(logits[hidden], batch["labels"][hidden], batch.get("label_smoothing", 0.0))
    size = (logits.float().logsumexp(-1).square() * seen(batch)).sum()
    terms = {"hidden": LossTerm(total, count), "size": LossTerm(size, seen(batch).sum(), options.size_weight)}
    return terms, more


def targets(batch: dict[str, Any]) -> dict[str, Any]:
    """The ids of what is hidden, and the number of all tokens."""
    return {"hidden": batch["labels"][batch["labels"] != -100], "size": seen(batch).sum()}


TWO_TERMS = replace(
    MASKED_LM,
    name="two-terms",
    summary="Fill in missing words with small logits.",
    options=TwoTermsOptions,
    loss=loss,
    targets=targets,
)
