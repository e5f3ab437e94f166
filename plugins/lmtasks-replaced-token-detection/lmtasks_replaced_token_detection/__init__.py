"""replaced-token-detection: tell which tokens of a text a small generator has put there (Clark et al. 2020, ELECTRA).

The generator learns to fill gaps and is saved beside the model, which shares its embeddings.
"""

from dataclasses import dataclass, replace

from lmtasks import BlockOptions, LossTerm, hookimpl, model_inputs, option, stack, token_mask, token_sums, unwrapped
from lmtasks.builtin.masked_lm import MASKED_LM

NOISE = 2**31


@dataclass(frozen=True, kw_only=True)
class ReplacedTokenOptions(BlockOptions):
    """Options of replaced-token-detection."""

    mlm_probability: float = option(0.15, help="share of tokens that the generator guesses", gt=0, lt=1)
    generator_size: float = option(0.25, help="width of the generator, as a share of the model's", gt=0, le=1)
    discriminator_weight: float = option(50.0, help="weight of telling tokens apart, beside the generator's loss", gt=0)


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

    config = type(model.config).from_dict(model.config.to_dict())
    config.num_attention_heads = max(1, round(config.num_attention_heads * options.generator_size))
    config.hidden_size = config.num_attention_heads * (model.config.hidden_size // model.config.num_attention_heads)
    config.intermediate_size = max(1, round(config.intermediate_size * options.generator_size))
    model.generator = ElectraForMaskedLM(config)
    model.generator.electra.embeddings = model.electra.embeddings
    model.generator.tie_weights()


def targets(batch):
    """What stood in the gaps, and how many tokens are to be told apart: all but padding."""
    gaps = batch["labels"][:, 0]
    return {"generator": gaps[gaps != -100], "discriminator": token_mask(batch).sum()}


def loss(model, batch, options):
    """Guesses of the generator in nats; and of the model, whether each token is one of the text's."""
    import torch

    (words, noise), tokens, inputs = batch["labels"].unbind(1), token_mask(batch), model_inputs(batch)
    gaps, logits = words != -100, unwrapped(model).generator(**inputs).logits
    guesses, count, more = token_sums(logits, words, batch.get("label_smoothing", 0.0))
    reached = logits[gaps].detach().double().softmax(-1).cumsum(-1)
    drawn = torch.searchsorted(reached, (noise[gaps, None] + 0.5) / NOISE * reached[:, -1:])[:, 0]
    ids = batch["input_ids"].masked_scatter(gaps, drawn)
    other = ids != batch["input_ids"].masked_scatter(gaps, words[gaps])
    told = torch.nn.functional.binary_cross_entropy_with_logits(
        model(**{**inputs, "input_ids": ids}).logits[tokens].float(), other[tokens].float(), reduction="sum"
    )
    detected = LossTerm(told, tokens.sum(), options.discriminator_weight)
    return {"generator": LossTerm(guesses, count), "discriminator": detected}, more


REPLACED_TOKEN_DETECTION = replace(
    MASKED_LM,
    name="replaced-token-detection",
    summary="Tell which tokens a small generator has put into a text (ELECTRA).",
    options=ReplacedTokenOptions,
    collator=collator,
    prepare_model=prepare_model,
    loss=loss,
    targets=targets,
    model_class="transformers:ElectraForPreTraining",
    vocabulary=False,
    pipeline="lmtasks_replaced_token_detection.pipeline:DetectionPipeline",
    perplexity_name=lambda options: f"generator's perplexity, {100 * options.mlm_probability:g}% of tokens hidden",
    gap="",
    answers=lambda output: [f"{token['score']:6.1%}  {token['word']}" for token in output],
    starter=replace(
        MASKED_LM.starter,
        model={"model_type": "electra", "config_overrides": "num_hidden_layers=2", "train_tokenizer": 2000},
        training={"block_size": 64, "learning_rate": 1e-3, "max_steps": 300, "warmup_steps": 0.1},
        texts=("If value is pineapple, the method returns None.",),
        predict={},
    ),
)


@hookimpl
def lmtasks_recipes():
    """The recipe of this package."""
    return [REPLACED_TOKEN_DETECTION]
