"""masked-lm: hide some tokens, learn to tell them from both sides (Devlin et al. 2019, BERT).

Follows the task guide "Masked language modeling"; what differs is written in docs/recipes.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from lmtasks import (
    EVALUATION_SEED,
    BlockOptions,
    Blocks,
    InputError,
    Recipe,
    Starter,
    TokenizerSpec,
    hookimpl,
    option,
    stack,
    template_tokens,
)

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedTokenizerBase

    from lmtasks.api import Batch, Example


@dataclass(frozen=True, kw_only=True)
class MaskedLMOptions(BlockOptions):
    """Options of masked-lm."""

    mlm_probability: float = option(0.15, help="share of tokens to predict", gt=0, lt=1, training_only=True)
    eval_mlm_probability: float = option(0.15, help="the same share in evaluation, fixed masks", gt=0, lt=1)
    mask_unit: Literal["token", "word"] = option("token", help="what is predicted as a whole")
    word_segmenter: str = option("unicode", help="what tells words: unicode, or a name that a plugin has")
    pseudo_perplexity: bool = option(False, help="evaluate with every token hidden alone, too (takes long)")


def preprocess(tokenizer: PreTrainedTokenizerBase, options: BlockOptions) -> Blocks:
    """Running text in blocks, each between the tokenizer's own special tokens, once.

    Isolated documents each have them: to itself, each is a text of its own. A variant of this recipe
    may have other options of blocks.
    """
    start, end = template_tokens(tokenizer)
    words = isinstance(options, MaskedLMOptions) and options.mask_unit == "word"
    segmenter = options.word_segmenter if isinstance(options, MaskedLMOptions) else "unicode"
    if segmenter != "unicode" and not words:
        raise InputError(f"--word_segmenter {segmenter} has no words to tell", "add --mask_unit word")
    known = {"words": words, "word_segmenter": segmenter, "never_targets": tuple(tokenizer.all_special_ids)}
    if options.isolate_documents and not options.line_by_line:
        return options.blocks(document_start=start, document_end=end, **known)
    return options.blocks(start=start, end=end, **known)


def views(tokenizer: PreTrainedTokenizerBase, options: BlockOptions) -> dict[str, Blocks]:
    """Pseudo-log-likelihood: the loss of every token given all others of its block (Salazar et al. 2020)."""
    if not isinstance(options, MaskedLMOptions) or not options.pseudo_perplexity:
        return {}
    return {"pseudo": replace(preprocess(tokenizer, options), one_by_one=True)}


def collator(
    tokenizer: PreTrainedTokenizerBase, options: MaskedLMOptions, training: bool
) -> Callable[[list[Example]], Batch]:
    """Batches with 80 % of the targets masked, 10 % replaced at random, 10 % left as they are."""
    import numpy as np
    import torch

    probability = options.mlm_probability if training else options.eval_mlm_probability
    special = np.asarray(tokenizer.all_special_ids)
    # Special tokens are no words: as random replacements they would also shift the positions of
    # models that read these off the padding id (RoBERTa).
    words = np.setdiff1d(np.arange(len(tokenizer)), special)

    def collate(examples: list[Example]) -> Batch:
        hidden = [hide(example, probability, special, words, tokenizer.mask_token_id) for example in examples]
        inputs = [{**example, "input_ids": ids} for example, (ids, _) in zip(examples, hidden, strict=True)]
        batch = stack(inputs, tokenizer)
        labels = torch.full_like(batch["input_ids"], -100)
        for row, (_, targets) in zip(labels, hidden, strict=True):
            row[: len(targets)] = torch.from_numpy(targets)
        return {**batch, "labels": labels}

    return collate


def hide(
    example: Example, probability: float, special: np.ndarray, words: np.ndarray, mask_token: int
) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and labels of one example, both int64 [length], drawn from the example's own seed.

    At least one token, or word where the example says where words begin, is a target, unless the example
    has nothing but special tokens: without one a batch would have no loss. What becomes of a target is
    drawn token by token also within a word, as in BERT's own whole word masking.
    An example that says what is scored has exactly that hidden.
    """
    import numpy as np

    ids = np.asarray(example["input_ids"], dtype=np.int64)
    if "scored" in example:
        targets = example["scored"] & ~np.isin(ids, special)
        return np.where(targets, mask_token, ids), np.where(targets, ids, -100)
    draw = np.random.default_rng(example["seed"])
    chance, fate = draw.random(len(ids)), draw.random(len(ids))
    replacement = draw.choice(words, size=len(ids))
    if "word_starts" in example:
        chance = chance[np.maximum.accumulate(np.where(example["word_starts"], np.arange(len(ids)), 0))]
    chance[np.isin(ids, special)] = 1.0
    targets = chance < probability
    if not targets.any() and chance.min() < 1.0:
        targets = chance == chance.min()
    labels = np.where(targets, ids, -100)
    inputs = np.where(targets & (fate < 0.8), mask_token, ids)
    inputs = np.where(targets & (fate >= 0.9), replacement, inputs)
    return inputs, labels


def perplexity_name(options: MaskedLMOptions) -> str:
    """Masked-token perplexity is no perplexity of the text; it depends on how much is hidden, and what."""
    share = f"{100 * options.eval_mlm_probability:g}% of {options.mask_unit}s hidden"
    return f"masked-token perplexity, {share}, mask seed {EVALUATION_SEED}"


def prompt(tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    """The text with whichever mask a person typed as the tokenizer's own."""
    for typed in ("<mask>", "[MASK]"):
        text = text.replace(typed, tokenizer.mask_token)
    return text


def answers(output: Any) -> list[str]:
    """Guesses with their probabilities, mask by mask when there are several."""
    if output and isinstance(output[0], list):
        return [line for number, mask in enumerate(output, 1) for line in (f"mask {number}", *map(_guess, mask))]
    return [f"{_guess(guess):<24} {' '.join(guess['sequence'].split())}" for guess in output]


def _guess(guess: dict[str, Any]) -> str:
    return f"{guess['score']:6.1%}  {guess['token_str'].strip() or repr(guess['token_str'])}"


MASKED_LM = Recipe(
    name="masked-lm",
    summary="Fill in hidden words using the text on both sides.",
    options=MaskedLMOptions,
    preprocess=preprocess,
    collator=collator,
    loss="lmtasks:masked_loss",
    model_class="transformers:AutoModelForMaskedLM",
    pipeline="fill-mask",
    attention="bidirectional",
    views=views,
    metrics=("lmtasks.metrics:Perplexity", "lmtasks.metrics:Accuracy"),
    perplexity_name=perplexity_name,
    required_tokens=("mask_token",),
    tokenizer=TokenizerSpec(
        special_tokens={
            "bos_token": "<s>",
            "pad_token": "<pad>",
            "eos_token": "</s>",
            "unk_token": "<unk>",
            "cls_token": "<s>",
            "sep_token": "</s>",
            "mask_token": "<mask>",
        },
        template="<s> $A </s>",
    ),
    gap="<mask>",
    prompt=prompt,
    answers=answers,
    starter=Starter(
        sample="python",
        # Small, rotary and normalised before each layer: with learned positions and normalisation
        # after, a model this size spends the whole first minute on the unigram plateau. Short blocks
        # and few tokens buy the steps that it needs to get off.
        model={
            "model_type": "modernbert",
            "config_overrides": "num_hidden_layers=2,hidden_size=128,num_attention_heads=4,intermediate_size=256,"
            "max_position_embeddings=512,local_attention=16",
            "train_tokenizer": 2000,
        },
        training={
            "block_size": 64,
            "mlm_probability": 0.2,
            "learning_rate": 3e-3,
            "max_steps": 1400,
            "warmup_steps": 0.1,
            "per_device_train_batch_size": 16,
            "adam_beta2": 0.95,
        },
        epochs=35,
        texts=("The default value <mask> None.", "it must <mask> a string", "def __init__(<mask>, name):"),
        predict={"top_k": 3},
    ),
)


@hookimpl
def lmtasks_recipes() -> list[Recipe]:
    """The recipe of this module."""
    return [MASKED_LM]
