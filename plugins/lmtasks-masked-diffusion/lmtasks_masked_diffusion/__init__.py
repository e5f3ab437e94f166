"""masked-diffusion: write a text in any order, from masks to words (Sahoo et al. 2024, MDLM; Nie et al. 2025, LLaDA).

Of each example a share t of the tokens is hidden, and t is anything between none and all. The losses of what is hidden,
each divided by t, and their sum divided by the number of all tokens, are on average no less than the negative
log-likelihood of the text in nats per token: a bound on what telling the tokens costs, in whatever order.
"""

from dataclasses import replace

import lmtasks
from lmtasks.builtin.masked_lm import MASKED_LM

LEAST = 1e-3
"""The smallest t. Near 0 next to nothing is hidden, and what is has a weight of 1/t: the mean stays, but its variance
is infinite, and one token may upset a step. Without the last thousandth the figure is a bound all the same: fewer
tokens are hidden there than elsewhere, so what is left out costs less than the mean of the rest."""

UNIT = 2**31
"""Labels are whole numbers: t is counted in parts of this."""

GOLDEN = (5**0.5 - 1) / 2
"""Multiples of it, without their whole part, lie evenly between 0 and 1, however many there are: in evaluation the
examples have all t alike, which makes the figure far steadier than chance would."""


def collator(tokenizer, options, training):
    """Batches with hidden tokens, and labels of two rows: every token of the text, and t where one is hidden."""
    import numpy as np
    import torch

    def collate(examples):
        batch = lmtasks.stack(examples, tokenizer)
        labels = torch.full((len(examples), 2, batch["input_ids"].shape[1]), -100)
        for row, example in enumerate(examples):
            draw, number = np.random.default_rng(example["seed"]), example["seed"][-1]
            share = LEAST + (1 - LEAST) * (draw.random() if training else (0.5 + number * GOLDEN) % 1)
            told = np.flatnonzero(~np.isin(example["input_ids"], tokenizer.all_special_ids))
            hidden = told[draw.random(len(told)) < share]
            labels[row, 0, told] = batch["input_ids"][row, told]
            labels[row, 1, hidden] = round(share * UNIT)
            batch["input_ids"][row, hidden] = tokenizer.mask_token_id
        return {**batch, "labels": labels}

    return collate


def loss(model, batch):
    """Cross-entropy in nats of what is hidden, each divided by its t; and the number of all tokens."""
    words, share = batch["labels"].unbind(1)
    total, _, _ = lmtasks.target_sums(model, batch, words.masked_fill(share < 0, -100), UNIT / share)
    return total, (words != -100).sum()


MASKED_DIFFUSION = replace(
    MASKED_LM,
    name="masked-diffusion",
    summary="Write a text in any order, from masks to words (MDLM, LLaDA).",
    options=lmtasks.BlockOptions,
    collator=collator,
    # Every token of the text, hidden or not: the bound is on all of them.
    targets=lambda batch: batch["labels"][:, 0][batch["labels"][:, 0] != -100],
    loss=loss,
    pipeline="lmtasks_masked_diffusion.pipeline:UnmaskingPipeline",
    metrics=("lmtasks.metrics:Perplexity",),
    perplexity_name=lambda options: f"upper bound on the perplexity, mask seed {lmtasks.EVALUATION_SEED}",
    answers=lambda output: [output["text"]],
    starter=replace(
        MASKED_LM.starter,
        training={"block_size": 64, "learning_rate": 3e-3, "max_steps": 1400, "warmup_steps": 0.1},
        texts=("The default value <mask><mask><mask>.", "def __init__(self"),
        predict={},
    ),
)


@lmtasks.hookimpl
def lmtasks_recipes():
    """The recipe of this package."""
    return [MASKED_DIFFUSION]
