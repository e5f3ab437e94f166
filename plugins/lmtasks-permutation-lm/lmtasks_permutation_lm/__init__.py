"""permutation-lm: tell the tokens of a text in a random order (Yang et al. 2019, XLNet).

A token sees those that come before it in the order, wherever they stand in the text. Only the last
of the order are targets, in stretches, as XLNet was trained.
"""

from __future__ import annotations

from dataclasses import dataclass

from lmtasks import BlockOptions, InputError, Recipe, Starter, TokenizerSpec, hookimpl, option, stack, template_tokens


@dataclass(frozen=True, kw_only=True)
class PermutationLMOptions(BlockOptions):
    """Options of permutation-lm."""

    plm_probability: float = option(1 / 6, help="share of tokens to predict", gt=0, lt=1)
    max_span_length: int = option(5, help="longest stretch of tokens to predict", ge=1)


def preprocess(tokenizer, options):
    """Running text in blocks between the tokenizer's own special tokens."""
    start, end = template_tokens(tokenizer)
    if options.isolate_documents:
        raise InputError("permutation-lm has masks of its own", "leave --isolate_documents out")
    return options.blocks(start=start, end=end, never_targets=tuple(tokenizer.all_special_ids))


def collator(tokenizer, options, training):
    """Batches with who sees whom, and which positions are predicted."""
    import numpy as np
    import torch

    special = tokenizer.all_special_ids

    def collate(examples):
        batch = stack(examples, tokenizer)
        count, length = batch["input_ids"].shape
        orders = [ordered(example, options, special) for example in examples]
        most = max(1, max(len(targets) for _, targets in orders))
        hidden = np.ones((count, length, length), dtype=np.float32)
        mapping = np.zeros((count, most, length), dtype=np.float32)
        labels = np.full((count, most), -100)
        for row, (place_in_order, targets) in enumerate(orders):
            size = len(place_in_order)
            # What is not predicted comes first in the order, and sees all else that is not.
            sees = place_in_order[:, None] > place_in_order[None, :]
            given = place_in_order == 0
            hidden[row, :size, :size] = ~(sees | (given[:, None] & given[None, :]))
            mapping[row, np.arange(len(targets)), targets] = 1
            labels[row, : len(targets)] = np.asarray(examples[row]["input_ids"])[targets]
        return {
            **batch,
            "perm_mask": torch.from_numpy(hidden),
            "target_mapping": torch.from_numpy(mapping),
            "labels": torch.from_numpy(labels),
        }

    return collate


def ordered(example, options, special):
    """The place of each token in the order, 0 for what is given; and the positions to predict."""
    import numpy as np

    ids = np.asarray(example["input_ids"])
    draw = np.random.default_rng(example["seed"])
    targets = np.zeros(len(ids), dtype=np.bool_)
    place = 0
    # Each stretch stands in a context that is longer than it by the share of targets.
    while place < len(ids):
        span = int(draw.integers(1, options.max_span_length + 1))
        context = max(span, int(span / options.plm_probability))
        start = place + int(draw.integers(0, context - span + 1))
        targets[start : start + span] = True
        place += context
    words = ~np.isin(ids, special)
    targets &= words
    if not targets.any() and words.any():
        targets[draw.choice(np.flatnonzero(words))] = True
    places = np.flatnonzero(targets)
    order = np.zeros(len(ids), dtype=np.int64)
    order[places] = draw.permutation(len(places)) + 1
    return order, places


def answers(output):
    """The text with its continuation."""
    return [line for choice in output for line in choice["generated_text"].splitlines()]


PERMUTATION_LM = Recipe(
    name="permutation-lm",
    summary="Tell the tokens of a text in any order (XLNet).",
    options=PermutationLMOptions,
    preprocess=preprocess,
    collator=collator,
    loss="lmtasks:masked_loss",
    model_class="transformers:XLNetLMHeadModel",
    pipeline="text-generation",
    metrics=("lmtasks.metrics:Perplexity", "lmtasks.metrics:Accuracy"),
    perplexity_name=lambda options: f"permuted perplexity, {100 * options.plm_probability:.3g}% of tokens predicted",
    required_tokens=("pad_token",),
    tokenizer=TokenizerSpec(
        special_tokens={
            "pad_token": "<pad>",
            "unk_token": "<unk>",
            "bos_token": "<s>",
            "eos_token": "</s>",
            "sep_token": "<sep>",
            "cls_token": "<cls>",
            "mask_token": "<mask>",
        },
        template="$A <sep> <cls>",
    ),
    answers=answers,
    starter=Starter(
        sample="python",
        model={
            "model_type": "xlnet",
            "config_overrides": "n_layer=2,d_model=128,n_head=4,d_inner=256",
            "train_tokenizer": 2000,
        },
        training={"block_size": 64, "learning_rate": 2e-3, "max_steps": 500, "warmup_steps": 0.1},
        texts=("if value is",),
        predict={"max_new_tokens": 8, "do_sample": False},
    ),
)


@hookimpl
def lmtasks_recipes():
    """The recipe of this package."""
    return [PERMUTATION_LM]
