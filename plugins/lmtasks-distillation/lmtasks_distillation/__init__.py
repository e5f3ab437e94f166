"""Distillation: learn a text as a larger model tells it (Sanh et al. 2019, as DistilRoBERTa and DistilGPT2 were made).

Three losses: that of the text itself, how far the predictions are from the teacher's, and how far the last states
point elsewhere than the teacher's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

from lmtasks import InputError, LossTerm, from_pretrained, hookimpl, option
from lmtasks.builtin.causal_lm import CAUSAL_LM, CausalLMOptions
from lmtasks.builtin.masked_lm import MASKED_LM, MaskedLMOptions


@dataclass(frozen=True, kw_only=True)
class Distilled:
    """Options of both recipes."""

    teacher: str = option("", help="folder or Hub id of the model to learn from")
    temperature: float = option(2.0, help="how soft the predictions are that are compared", gt=0)
    teacher_weight: float = option(5.0, help="weight of the distance from the teacher's predictions", ge=0)
    text_weight: float = option(2.0, help="weight of the loss of the text itself", ge=0)
    states_weight: float = option(1.0, help="weight of the angle between last hidden states", ge=0)


@dataclass(frozen=True, kw_only=True)
class DistilledMaskedLMOptions(Distilled, MaskedLMOptions):
    """Options of distilled-masked-lm."""


@dataclass(frozen=True, kw_only=True)
class DistilledCausalLMOptions(Distilled, CausalLMOptions):
    """Options of distilled-causal-lm."""

    text_weight: float = option(0.5, help="weight of the loss of the text itself", ge=0)


def prepare_model(model, options, recipe):
    """The teacher beside the model; it stays as it is."""
    if not options.teacher:
        raise InputError("distillation needs a teacher", "--teacher MODEL")
    teacher = from_pretrained(recipe.model_class, options.teacher).requires_grad_(False)
    for size in ("vocab_size", "hidden_size"):
        ours, theirs = getattr(model.config, size), getattr(teacher.config, size)
        if ours != theirs and (size == "vocab_size" or options.states_weight):
            without = ", or --states_weight 0" * (size == "hidden_size")
            raise InputError(f"{size} is {ours} here, {theirs} in '{options.teacher}'", f"make them the same{without}")
    model.teacher = teacher


def shown(batch):
    """Which tokens are no padding, bool [examples, length]."""
    return batch.get("attention_mask", batch["input_ids"].new_ones(batch["input_ids"].shape)).bool()


def targets(batch, recipe):
    """Those of the text, and all tokens for what is compared with the teacher."""
    tokens = shown(batch).sum()
    return {"text": recipe.targets(batch), "teacher": tokens, "states": tokens}


def loss(model, batch, options, ahead):
    """The three sums, in nats, in nats times the square of the temperature, and in cosine distances."""
    import torch
    from torch.nn.functional import cosine_similarity, kl_div

    from lmtasks import token_sums

    inputs = {name: batch[name] for name in batch if name not in ("labels", "label_smoothing")}
    ours = model(**inputs, output_hidden_states=True)
    with torch.no_grad():
        theirs = getattr(model, "module", model).teacher(**inputs, output_hidden_states=True)
    said, asked = ours.logits[:, : ours.logits.shape[1] - ahead], batch["labels"][:, ahead:]
    text = token_sums(said[asked != -100], asked[asked != -100], batch.get("label_smoothing", 0.0))
    tokens = shown(batch)
    soft = [(logits[tokens].float() / options.temperature).log_softmax(-1) for logits in (ours.logits, theirs.logits)]
    apart = kl_div(*soft, reduction="sum", log_target=True) * options.temperature**2
    states = [
        outputs.hidden_states[-1][tokens].float() for outputs in (ours, theirs if options.states_weight else ours)
    ]
    terms = {
        "text": LossTerm(text[0], text[1], options.text_weight),
        "teacher": LossTerm(apart, tokens.sum(), options.teacher_weight),
        "states": LossTerm((1 - cosine_similarity(*states)).sum(), tokens.sum(), options.states_weight),
    }
    return terms, text[2]


def distilled(recipe, options, ahead):
    """A recipe with a teacher.

    Args:
        ahead: how many places after its own the token stands that a position is asked for.
    """
    return replace(
        recipe,
        name=f"distilled-{recipe.name}",
        summary=f"{recipe.summary.rstrip('.')}, as a larger model would.",
        options=options,
        prepare_model=partial(prepare_model, recipe=recipe),
        loss=partial(loss, ahead=ahead),
        targets=partial(targets, recipe=recipe),
        starter=None,
    )


@hookimpl
def lmtasks_recipes():
    """The recipes of this package."""
    return [
        distilled(MASKED_LM, DistilledMaskedLMOptions, ahead=0),
        distilled(CAUSAL_LM, DistilledCausalLMOptions, ahead=1),
    ]
