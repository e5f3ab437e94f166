"""A recipe with three modules beside its model: a guide that shares its table of tokens, a judge, a teacher at rest."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import torch

from lmtasks import LossTerm, hookimpl, masked_loss, model_inputs, option, token_mask, unwrapped
from lmtasks.builtin.masked_lm import MASKED_LM, MaskedLMOptions


@dataclass(frozen=True, kw_only=True)
class AccompaniedOptions(MaskedLMOptions):
    """Options of accompanied-lm."""

    judges: int = option(1, help="how many figures the judge gives", ge=1)


def prepare_model(model, options):
    """A guide with one layer and the model's own embeddings, a judge, and a teacher that is drawn and stays so."""
    config = copy.deepcopy(model.config)
    config.hidden_dropout_prob = 0.5
    model.teacher = type(model)(config).requires_grad_(False)
    config.num_hidden_layers = 1
    model.guide = type(model)(config)
    model.guide.base_model.embeddings = model.base_model.embeddings
    model.guide.tie_weights()
    model.judge = torch.nn.Linear(model.config.hidden_size, options.judges)


def loss(model, batch):
    """The text's; the guide's; how far the judge is from one, of states; how far the states from the teacher's."""
    inputs, bare = model_inputs(batch), unwrapped(model)
    assert not bare.teacher.training, "a teacher is at rest"
    ours = model(**inputs, output_hidden_states=True).hidden_states[-1]
    theirs = bare.teacher(**inputs, output_hidden_states=True).hidden_states[-1]
    text, guide = masked_loss(model, batch), masked_loss(bare.guide, batch)
    tokens = token_mask(batch)
    return {
        "text": LossTerm(text[0], text[1]),
        "guide": LossTerm(guide[0], guide[1], 0.5),
        "judge": LossTerm((bare.judge(ours)[tokens] - 1).square().sum(), tokens.sum()),
        "teacher": LossTerm((ours - theirs)[tokens].square().sum(), tokens.sum(), 0.1),
    }, text[2]


def targets(batch):
    """Labels for text and guide, and all tokens for the others."""
    labels, tokens = batch["labels"][batch["labels"] != -100], token_mask(batch).sum()
    return {"text": labels, "guide": labels, "judge": tokens, "teacher": tokens}


ACCOMPANIED = replace(
    MASKED_LM,
    name="accompanied-lm",
    options=AccompaniedOptions,
    prepare_model=prepare_model,
    loss=loss,
    targets=targets,
    starter=None,
)


@hookimpl
def lmtasks_recipes():
    """The recipe."""
    return [ACCOMPANIED]
