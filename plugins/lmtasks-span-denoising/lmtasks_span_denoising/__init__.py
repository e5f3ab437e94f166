"""span-denoising: hide stretches of a text, learn to write them (Raffel et al. 2020, T5).

Each stretch becomes one sentinel in the input; the target is the sentinels, each followed by what it
stands for, and one more sentinel for the end.
"""

from __future__ import annotations

from dataclasses import dataclass

from lmtasks import BlockOptions, Recipe, Starter, TokenizerSpec, hookimpl, option, stack

SENTINELS = tuple(f"<extra_id_{number}>" for number in range(100))


@dataclass(frozen=True, kw_only=True)
class SpanDenoisingOptions(BlockOptions):
    """Options of span-denoising."""

    noise_density: float = option(0.15, help="share of tokens to hide", gt=0, lt=0.9)
    mean_span_length: float = option(3.0, help="mean length of a hidden stretch, in tokens", ge=1)


def preprocess(tokenizer, options):
    """Running text; documents end with the end-of-text token."""
    return options.blocks(document_end=(tokenizer.eos_token_id,))


def collator(tokenizer, options, training):
    """Encoder inputs with sentinels, decoder inputs and labels with what they stand for."""
    import torch

    sentinels = tokenizer.convert_tokens_to_ids(list(SENTINELS))
    end = [tokenizer.eos_token_id]

    def collate(examples):
        parted = [corrupt(example, options, sentinels) for example in examples]
        batch = stack([{"input_ids": inputs + end} for inputs, _ in parted], tokenizer)
        targets = stack([{"input_ids": target + end} for _, target in parted], tokenizer)
        labels = targets["input_ids"].masked_fill(targets.get("attention_mask", torch.ones(())) == 0, -100)
        # The decoder begins with the padding token, as in all of T5's family.
        first = torch.full_like(labels[:, :1], tokenizer.pad_token_id)
        before = torch.cat([first, targets["input_ids"][:, :-1]], dim=1)
        return {**batch, "decoder_input_ids": before, "labels": labels}

    return collate


def corrupt(example, options, sentinels):
    """Input and target of one example, lists of ids: as many spans as density and mean length ask for."""
    import numpy as np

    ids = [int(token) for token in example["input_ids"]]
    draw = np.random.default_rng(example["seed"])
    hidden = min(max(round(len(ids) * options.noise_density), 1), len(ids) - 1) if len(ids) > 1 else len(ids)
    spans = max(1, min(round(hidden / options.mean_span_length), hidden, len(ids) - hidden + 1, len(sentinels) - 1))
    # Something stands between two spans, but nothing need stand before the first and after the last.
    first, *between = partition(draw, len(ids) - hidden + 2, spans + 1)
    inputs, target, place = [], [], 0
    for sentinel, kept, gone in zip(sentinels, [first - 1, *between], partition(draw, hidden, spans), strict=False):
        inputs += [*ids[place : place + kept], sentinel]
        target += [sentinel, *ids[place + kept : place + kept + gone]]
        place += kept + gone
    return [*inputs, *ids[place:]], [*target, sentinels[spans]]


def partition(draw, total, parts):
    """So many positive numbers with this sum, every such list equally likely."""
    import numpy as np

    cuts = np.sort(draw.choice(total - 1, parts - 1, replace=False)) + 1
    return np.diff([0, *cuts, total]).tolist()


def prompt(tokenizer, text):
    """``<mask>``, once or more, as those of T5's sentinels that the text does not have."""
    for sentinel in [sentinel for sentinel in SENTINELS if sentinel not in text]:
        text = text.replace("<mask>", sentinel, 1)
    return text


def answers(output):
    """The text with its gaps filled."""
    return [output["text"]]


SPAN_DENOISING = Recipe(
    name="span-denoising",
    summary="Write the missing stretches of a text (T5).",
    options=SpanDenoisingOptions,
    preprocess=preprocess,
    collator=collator,
    loss="lmtasks:masked_loss",
    model_class="transformers:AutoModelForSeq2SeqLM",
    pipeline="lmtasks_span_denoising.pipeline:SpanFillingPipeline",
    metrics=("lmtasks.metrics:Perplexity", "lmtasks.metrics:Accuracy"),
    perplexity_name=lambda options: f"perplexity of hidden spans, {100 * options.noise_density:g}% of tokens hidden",
    required_tokens=("pad_token", "eos_token"),
    extra_tokens=SENTINELS,
    tokenizer=TokenizerSpec(
        special_tokens={"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}, template="$A </s>"
    ),
    gap="<mask>",
    prompt=prompt,
    answers=answers,
    starter=Starter(
        sample="python",
        model={
            "model_type": "t5",
            "config_overrides": "num_layers=2,num_decoder_layers=2,d_model=128,d_kv=32,num_heads=4,d_ff=256",
            "train_tokenizer": 2000,
        },
        training={"block_size": 64, "learning_rate": 3e-3, "max_steps": 500, "warmup_steps": 0.1},
        texts=("The default value <mask> None.",),
    ),
)


@hookimpl
def lmtasks_recipes():
    """The recipe of this package."""
    return [SPAN_DENOISING]
