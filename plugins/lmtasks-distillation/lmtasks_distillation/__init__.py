"""Distillation: learn a text as a larger model tells it (Sanh et al. 2019, as DistilRoBERTa and DistilGPT2 were made).

Three losses: that of the text itself, how far the predictions are from the teacher's, and how far the last states
point elsewhere than the teacher's.
"""

from dataclasses import dataclass, replace

import lmtasks
from lmtasks import Frozen, LossTerm, model_inputs, option, token_count, token_mask, token_sums, unwrapped
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
    states_weight: float = option(1.0, help="weight of the angle between last states; at 0 any width will do", ge=0)


@dataclass(frozen=True, kw_only=True)
class DistilledMaskedLMOptions(Distilled, MaskedLMOptions):
    """Options of distilled-masked-lm."""


@dataclass(frozen=True, kw_only=True)
class DistilledCausalLMOptions(Distilled, CausalLMOptions):
    """Options of distilled-causal-lm."""

    text_weight: float = option(0.5, help="weight of the loss of the text itself", ge=0)


def alike(options):
    """What teacher and model must have in common."""
    return ("vocab_size", "hidden_size") if options.states_weight else ("vocab_size",)


def loss(model, batch, options):
    """The three sums, in nats, in nats times the square of the temperature, and in cosine distances."""
    from torch.nn.functional import cosine_similarity, kl_div

    inputs, tokens = {**model_inputs(batch), "output_hidden_states": True}, token_mask(batch)
    ours, theirs = model(**inputs), unwrapped(model).teacher(**inputs)
    ahead = int(isinstance(options, DistilledCausalLMOptions))  # a causal model says the next token
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


def distilled(recipe, options):
    """A recipe with a teacher."""
    return replace(
        recipe,
        name=f"distilled-{recipe.name}",
        summary=f"{recipe.summary.rstrip('.')}, as a larger model would.",
        options=options,
        frozen={"teacher": Frozen(recipe.model_class, alike)},
        prepare_model=lambda model, options: lmtasks.keep_layers(model, options.keep_layers),
        loss=loss,
        targets={"text": recipe.targets, "teacher": token_count, "states": token_count},
    )


@lmtasks.hookimpl
def lmtasks_recipes():
    """The recipes of this package."""
    return [distilled(MASKED_LM, DistilledMaskedLMOptions), distilled(CAUSAL_LM, DistilledCausalLMOptions)]
