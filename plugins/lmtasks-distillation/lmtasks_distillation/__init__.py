"""Distillation: learn a text as a larger model tells it (Sanh et al. 2019, as DistilRoBERTa and DistilGPT2 were made).

Three losses: that of the text itself, how far the predictions are from the teacher's, and how far the last states
point elsewhere than the teacher's.
"""

from dataclasses import dataclass, replace
from functools import partial

import lmtasks
from lmtasks import LossTerm, model_inputs, option, token_mask, token_sums, unwrapped
from lmtasks.builtin.causal_lm import CAUSAL_LM, CausalLMOptions
from lmtasks.builtin.masked_lm import MASKED_LM, MaskedLMOptions


@dataclass(frozen=True, kw_only=True)
class Distilled:
    """Options of both recipes."""

    teacher: str = option("", help="folder or Hub id of the model to learn from")
    keep_layers: int | None = option(None, help="begin with so many of the model's layers, evenly spread", ge=1)
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
        raise lmtasks.InputError("distillation needs a teacher", "--teacher MODEL")
    if options.keep_layers:
        lmtasks.keep_layers(model, options.keep_layers)
    model.teacher = lmtasks.from_pretrained(recipe.model_class, options.teacher).requires_grad_(False)
    for size in ("vocab_size", "hidden_size") if options.states_weight else ("vocab_size",):
        ours, theirs = getattr(model.config, size), getattr(model.teacher.config, size)
        if ours != theirs:
            hint = "take a model with the teacher's tokenizer; with --states_weight 0 it may be of another width"
            raise lmtasks.InputError(f"{size} is {ours} here, {theirs} in '{options.teacher}'", hint)


def targets(batch, recipe):
    """Those of the text, and all tokens for what is compared with the teacher."""
    tokens = token_mask(batch).sum()
    return {"text": recipe.targets(batch), "teacher": tokens, "states": tokens}


def loss(model, batch, options, ahead):
    """The three sums, in nats, in nats times the square of the temperature, and in cosine distances."""
    from torch.nn.functional import cosine_similarity, kl_div

    inputs, tokens = {**model_inputs(batch), "output_hidden_states": True}, token_mask(batch)
    ours, theirs = model(**inputs), unwrapped(model).teacher(**inputs)
    said, asked = ours.logits[:, : ours.logits.shape[1] - ahead], batch["labels"][:, ahead:]
    text, count, more = token_sums(said, asked, batch.get("label_smoothing", 0.0))
    soft = [(one.logits[tokens].float() / options.temperature).log_softmax(-1) for one in (ours, theirs)]
    apart = kl_div(*soft, reduction="sum", log_target=True) * options.temperature**2
    states = [one.hidden_states[-1][tokens].float() for one in (ours, theirs if options.states_weight else ours)]
    return {
        "text": LossTerm(text, count, options.text_weight),
        "teacher": LossTerm(apart, tokens.sum(), options.teacher_weight),
        "states": LossTerm((1 - cosine_similarity(*states)).sum(), tokens.sum(), options.states_weight),
    }, more


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


@lmtasks.hookimpl
def lmtasks_recipes():
    """The recipes of this package."""
    return [distilled(MASKED_LM, DistilledMaskedLMOptions, 0), distilled(CAUSAL_LM, DistilledCausalLMOptions, 1)]
