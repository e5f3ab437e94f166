"""A recipe with a frozen reference beside its model, whose logits those of the model are held near."""

from __future__ import annotations

from dataclasses import dataclass, replace

from lmtasks import Frozen, LossTerm, hookimpl, model_inputs, option, token_count, token_mask, token_sums, unwrapped
from lmtasks.builtin.masked_lm import MASKED_LM, MaskedLMOptions


@dataclass(frozen=True, kw_only=True)
class ReferredOptions(MaskedLMOptions):
    """Options of referred-lm."""

    reference: str = option("", help="folder or Hub id of the model to stay near")


def loss(model, batch):
    """The text's, and the squared distance of the logits of all tokens from the reference's."""
    inputs, tokens = model_inputs(batch), token_mask(batch)
    logits, theirs = model(**inputs).logits, unwrapped(model).reference(**inputs).logits
    total, count, more = token_sums(logits, batch["labels"], batch.get("label_smoothing", 0.0))
    away = (logits - theirs)[tokens].float().square().mean(-1).sum()
    return {"text": LossTerm(total, count), "away": LossTerm(away, tokens.sum(), 10.0)}, more


REFERRED = replace(
    MASKED_LM,
    name="referred-lm",
    summary="Fill in hidden words, and stay near a reference.",
    options=ReferredOptions,
    frozen={"reference": Frozen(MASKED_LM.model_class)},
    loss=loss,
    targets={"text": MASKED_LM.targets, "away": token_count},
)


@hookimpl
def lmtasks_recipes():
    """The recipe."""
    return [REFERRED]
