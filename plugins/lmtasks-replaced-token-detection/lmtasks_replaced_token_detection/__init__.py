"""replaced-token-detection: tell which tokens of a text a small generator has put there (Clark et al. 2020, ELECTRA).

The generator learns to fill gaps and is saved beside the model, which shares its embeddings.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass

from lmtasks import BlockOptions, LossTerm, Recipe, Starter, TokenizerSpec, hookimpl, option, stack, template_tokens

NOISE = 2**31


@dataclass(frozen=True, kw_only=True)
class ReplacedTokenOptions(BlockOptions):
    """Options of replaced-token-detection."""

    mlm_probability: float = option(0.15, help="share of tokens that the generator guesses", gt=0, lt=1)
    generator_size: float = option(0.25, help="width of the generator, as a share of the model's", gt=0, le=1)
    discriminator_weight: float = option(50.0, help="weight of telling tokens apart, beside the generator's loss", gt=0)


def preprocess(tokenizer, options):
    """Running text in blocks between the tokenizer's own special tokens."""
    start, end = template_tokens(tokenizer)
    return options.blocks(start=start, end=end, never_targets=tuple(tokenizer.all_special_ids))


def collator(tokenizer, options, training):
    """Batches with gaps, and labels of two rows: what stood in a gap, and a number by which a guess is drawn."""
    import numpy as np
    import torch

    def collate(examples):
        batch = stack(examples, tokenizer)
        labels = torch.full((len(examples), 2, batch["input_ids"].shape[1]), -100)
        for row, example in enumerate(examples):
            ids, draw = np.asarray(example["input_ids"]), np.random.default_rng(example["seed"])
            chance = np.where(np.isin(ids, tokenizer.all_special_ids), 1, draw.random(len(ids)))
            gaps = np.flatnonzero(chance < max(options.mlm_probability, np.nextafter(chance.min(), 1)))
            labels[row, 0, gaps] = batch["input_ids"][row, gaps]
            labels[row, 1, gaps] = torch.from_numpy(draw.integers(NOISE, size=len(gaps)))
            batch["input_ids"][row, gaps] = tokenizer.mask_token_id
        return {**batch, "labels": labels}

    return collate


def prepare_model(model, options):
    """The generator: as deep as the model, less wide, with the same embeddings."""
    from transformers import ElectraForMaskedLM

    config = deepcopy(model.config)
    config.num_attention_heads = max(1, round(config.num_attention_heads * options.generator_size))
    config.hidden_size = config.num_attention_heads * (model.config.hidden_size // model.config.num_attention_heads)
    config.intermediate_size = max(1, round(config.intermediate_size * options.generator_size))
    model.generator = ElectraForMaskedLM(config)
    model.generator.electra.embeddings = model.electra.embeddings
    model.generator.tie_weights()


def targets(batch):
    """What stood in the gaps, and how many tokens are to be told apart: all but padding."""
    gaps = batch["labels"][:, 0]
    return {"generator": gaps[gaps != -100], "discriminator": shown(batch).sum()}


def shown(batch):
    """Which tokens are no padding."""
    return batch.get("attention_mask", batch["input_ids"].new_ones(batch["input_ids"].shape)).bool()


def loss(model, batch, options):
    """Guesses of the generator in nats; and of the model, whether each token is one of the text's."""
    import torch

    from lmtasks import token_sums

    words, noise = batch["labels"].unbind(1)
    gaps, inputs = words != -100, {name: batch[name] for name in batch if name not in ("labels", "label_smoothing")}
    logits = getattr(model, "module", model).generator(**inputs).logits[gaps]
    sums = token_sums(logits, words[gaps], batch.get("label_smoothing", 0.0))
    reached = logits.detach().double().softmax(-1).cumsum(-1)
    drawn = torch.searchsorted(reached, (noise[gaps, None] + 0.5) / NOISE * reached[:, -1:])[:, 0]
    ids = inputs["input_ids"].masked_scatter(gaps, drawn)
    other = (ids != inputs["input_ids"].masked_scatter(gaps, words[gaps])).float()
    told = torch.nn.functional.binary_cross_entropy_with_logits(
        model(**{**inputs, "input_ids": ids}).logits.float(), other, weight=shown(batch).float(), reduction="sum"
    )
    detected = LossTerm(told, shown(batch).sum(), options.discriminator_weight)
    return {"generator": LossTerm(sums[0], sums[1]), "discriminator": detected}, sums[2]


def answers(output):
    """Every token with the probability that it is not the text's own."""
    return [f"{token['score']:6.1%}  {token['word']}" for token in output]


REPLACED_TOKEN_DETECTION = Recipe(
    name="replaced-token-detection",
    summary="Tell which tokens a small generator has put into a text (ELECTRA).",
    options=ReplacedTokenOptions,
    preprocess=preprocess,
    collator=collator,
    prepare_model=prepare_model,
    loss=loss,
    targets=targets,
    model_class="transformers:ElectraForPreTraining",
    model_types=("electra",),
    vocabulary=False,
    pipeline="lmtasks_replaced_token_detection.pipeline:DetectionPipeline",
    attention="bidirectional",
    metrics=("lmtasks.metrics:Perplexity", "lmtasks.metrics:Accuracy"),
    perplexity_name=lambda options: f"generator's perplexity, {100 * options.mlm_probability:g}% of tokens hidden",
    required_tokens=("mask_token",),
    tokenizer=TokenizerSpec(
        special_tokens={
            "pad_token": "[PAD]",
            "unk_token": "[UNK]",
            "cls_token": "[CLS]",
            "sep_token": "[SEP]",
            "mask_token": "[MASK]",
        },
        template="[CLS] $A [SEP]",
    ),
    answers=answers,
    starter=Starter(
        sample="python",
        model={
            "model_type": "electra",
            "config_overrides": "num_hidden_layers=2,embedding_size=64,hidden_size=128,num_attention_heads=4,"
            "intermediate_size=256",
            "train_tokenizer": 2000,
        },
        training={"block_size": 64, "learning_rate": 1e-3, "max_steps": 500, "warmup_steps": 0.1},
        texts=("If value is pineapple, the method returns None.",),
    ),
)


@hookimpl
def lmtasks_recipes():
    """The recipe of this package."""
    return [REPLACED_TOKEN_DETECTION]
